"""A GPU that is not there: shapes without values, counted as they pass.

Tensors on the CPU are real, those on ``cuda`` are torch's fake tensors. So the
host's part of a step runs as always, and each operation of the GPU's part is
counted: its kernel, its arithmetic, the bytes it reads and writes, and the
memory of its results.
"""

from __future__ import annotations

import sys
import weakref
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import takewhile
from pathlib import Path
from traceback import walk_stack, walk_tb
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.flop_counter import flop_registry

from .host_access import HANDLERS, follow, moved, plain_indices

GPU = torch.device('cuda:0')
# They allocate, or look at memory in another way, and launch nothing.
_NO_KERNEL = {
    *('empty', 'empty_like', 'empty_strided', 'new_empty', 'new_empty_strided'),
    *('_unsafe_view', '_reshape_alias', 'lift_fresh', 'set_', 'resize_', 'device', 'alias'),
}
# They overwrite their first argument without reading it.
_WRITES = {'copy_', 'fill_', 'zero_', 'normal_', 'uniform_', 'bernoulli_', 'random_'}
_FUNCTION = torch.autograd.function.__file__
_ROOT = Path(__file__).parents[3]
# Whose lines are no place in a model: torch's, and the rehearsal's own.
_SKIPPED = (str(Path(torch.__file__).parent), str(Path(__file__).parent))
_TOOL = str(Path(__file__).parents[1] / 'rehearse.py')


class Kernel(NamedTuple):
    """One operation on the GPU.

    Args:
        name: Of torch's operator.
        part: The part of the model that it belongs to.
        backward: Whether it is part of the backward pass.
        flops: Two for each multiply-add; of matrix products, convolutions
            and attention alone.
        bytes: Read and written.
        dtype: Of its first floating-point input.
    """

    name: str
    part: str
    backward: bool
    flops: int
    bytes: int
    dtype: torch.dtype


class FakeGPU(TorchDispatchMode):
    """Run what is on the CPU, count what is on the GPU.

    Attributes:
        kernels: All operations, in order.
        waits: How often the host waited for the GPU, by (what, place).
        mistakes: Operations on tensors of different devices, by (what,
            place); they go on as if all were on the GPU.
        live: Bytes in use by part.
        parts: Those that run, the innermost last.
        peak: ``live`` where its sum was largest.
    """

    def __init__(self) -> None:
        super().__init__()
        self.fake = FakeTensorMode(allow_non_fake_inputs=True)
        self.kernels: list[Kernel] = []
        self.waits: Counter[tuple[str, str]] = Counter()
        self.mistakes: Counter[tuple[str, str]] = Counter()
        self.live: Counter[str] = Counter()
        self.parts: list[str] = []
        self.peak: Counter[str] = Counter()
        self._storages: set[int] = set()
        self._numbered = torch._C._autograd._get_sequence_nr()
        self._recorded: set[int] = set()
        self._nowhere = False
        self._ends: list[Any] = []
        # where, in autograd's count of operations, which part began
        self._numbers: list[int] = [-1]
        self._began: list[str] = ['rest']

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Let what runs here belong to a part."""
        self.parts.append(name)
        try:
            yield
        finally:
            self.parts.pop()

    def prepare(self, parameters: Iterable[nn.Parameter]) -> None:
        """Let gradients arrive at trained parameters, once these are on the GPU."""
        with self.nowhere():
            for p in parameters:
                node = p.view_as(p).grad_fn
                assert node is not None
                # a parameter itself does not hold it
                self._ends.append(node.next_functions[0][0])

    @contextmanager
    def nowhere(self) -> Iterator[None]:
        """Let C++ take all tensors to be on no device that it knows."""
        before, self._nowhere = self._nowhere, True
        try:
            yield
        finally:
            self._nowhere = before

    def forget(self) -> None:
        """Count from here on; what is in memory stays."""
        self.kernels.clear()
        self.waits.clear()
        self.mistakes.clear()
        self.peak = Counter(self.live)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        name = func.overloadpacket.__name__
        if name == 'device':
            return self._device(args[0])
        # autograd numbers an operation before it runs
        numbered = torch._C._autograd._get_sequence_nr()
        recorded, self._numbered = numbered != self._numbered, numbered
        part, backward = self._current(numbered - recorded)
        kwargs = dict(kwargs or {})
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        fakes = [x for x in tensors if isinstance(x, FakeTensor)]
        device = kwargs.get('device')
        # what C++ takes a fake tensor's device to be
        if device is not None and device.type == 'meta':
            device = kwargs['device'] = GPU
        on_gpu = device is not None and device.type == 'cuda'
        if not fakes and not on_gpu:
            return func(*args, **kwargs)
        if name in HANDLERS:
            result = HANDLERS[name](self, args, kwargs)
            if result is not None:
                self._recorded = {id(result)} if recorded else set()
                return result
        if name in ('index', 'index_put', 'index_put_'):
            args = plain_indices(self, name, args)
        try:
            with torch.no_grad(), self.fake:
                out = func(*args, **kwargs)
        except RuntimeError as error:
            if 'found two different devices' not in str(error):
                raise
            self.mistakes[(str(error).partition(', ')[2] + f' in {name}', where())] += 1
            args, kwargs = tree_map_only(Tensor, partial(moved, self), (args, kwargs))
            with torch.no_grad(), self.fake:
                out = func(*args, **kwargs)
        outs = [x for x in tree_leaves(out) if isinstance(x, FakeTensor)]
        # a change in place of a view is recorded for what it is a view of
        self._recorded = {id(y) for x in outs for y in (x, x._base)} if recorded else set()
        for x in outs:
            self.allocate(x, part)
            if x.ndim == 0:
                x.made_by = name  # type: ignore[attr-defined]
        follow(func, args, kwargs, out)
        if not func.is_view and name not in _NO_KERNEL:
            packet = func.overloadpacket
            count = flop_registry.get(packet, lambda *_, **__: 0)
            flops = count(*args, **kwargs, out_val=out)
            read = tensors[name in _WRITES :]
            size = sum(map(_bytes, read)) + sum(map(_bytes, outs))
            kinds = [x.dtype for x in (*tensors, *outs) if x.is_floating_point()]
            dtype = kinds[0] if kinds else torch.float32
            self.kernels.append(Kernel(name, part, backward, flops, size, dtype))
        return out

    def _device(self, x: FakeTensor) -> torch.device:
        """What C++ takes the device of a tensor to be.

        Autocast asks for it, to cast what is on the GPU. So does autograd,
        for each result that it records and in the backward pass, and would
        then look for the GPU's streams: to it, tensors are nowhere.
        """
        recorded = id(x) in self._recorded
        self._recorded.discard(id(x))
        backward = torch._C._current_autograd_node() is not None
        function = sys._getframe(2).f_code.co_filename == _FUNCTION
        nowhere = self._nowhere or recorded or backward or function
        if nowhere or x.fake_mode.in_kernel_invocation:
            return torch.device('meta')
        return x.fake_device

    def _current(self, number: int) -> tuple[str, bool]:
        """The part that runs, by autograd's number, and whether it is its backward."""
        node = torch._C._current_autograd_node()
        if node is None or self.parts:
            part = self.parts[-1] if self.parts else 'rest'
            if node is None and torch.is_grad_enabled() and part != self._began[-1]:
                self._numbers.append(number)
                self._began.append(part)
            return part, node is not None
        # what a number in the forward pass belonged to
        index = bisect_right(self._numbers, node._sequence_nr()) - 1
        return self._began[max(index, 0)], True

    def allocate(self, x: Tensor, part: str | None = None) -> None:
        """Count the memory of a tensor, which a view has not, until it is gone."""
        part = part or self._current(self._numbered)[0]
        storage = x.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._storages:
            return
        self._storages.add(key)
        self.live[part] += size
        if self.live.total() > self.peak.total():
            self.peak = Counter(self.live)
        weakref.finalize(storage, self._free, key, size, part)

    def _free(self, key: int, size: int, part: str) -> None:
        self._storages.discard(key)
        self.live[part] -= size

    def wait(self, what: str) -> None:
        """Note that the host waits here, and for what."""
        self.waits[(what, where())] += 1


def _bytes(x: Tensor) -> int:
    """Bytes of a tensor's values, those that it repeats counted once."""
    values = 1
    for side, stride in zip(x.shape, x.stride(), strict=True):
        values *= side if stride else 1
    return values * x.element_size() if x.numel() else 0


def where(error: BaseException | None = None) -> str:
    """File and line of the caller, or where an error was raised.

    The innermost outside of torch and, if that is a library's, in this
    project.
    """
    frames = walk_stack(None) if error is None else reversed([*walk_tb(error.__traceback__)])
    files = ((frame.f_code.co_filename, line) for frame, line in frames)
    found = [
        f'{name.rpartition("site-packages/")[2].removeprefix(f"{_ROOT}/")}:{line}'
        for name, line in takewhile(lambda file: file[0] != _TOOL, files)
        if not name.startswith((*_SKIPPED, '<'))
    ]
    ours = [place for place in found if (_ROOT / place.rpartition(':')[0]).is_file()]
    innermost = found[0] if found else 'the backward pass'
    if not ours or ours[0] == innermost:
        return innermost
    return f'{innermost}, called from {ours[0]}'
