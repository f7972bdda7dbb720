"""Where the host asks a GPU without values for some, or gives it its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._pytree import tree_leaves, tree_map_only

# Elements of tensors whose values are followed.
_SMALL = 4096
_SIZE = 'a size that depends on values'


def known(x: Tensor) -> Tensor | None:
    """The values of a tensor, on the host; None where nobody knows them."""
    return getattr(x, 'known', None) if isinstance(x, FakeTensor) else x


def follow(func: Any, args: Any, kwargs: Any, out: Any) -> None:
    """Keep the values of small tensors that are known, such as sizes."""
    tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
    leaves = [x for x in tree_leaves(out) if isinstance(x, Tensor)]
    small = sum(x.numel() for x in (*tensors, *leaves)) <= _SMALL
    followed = all(known(x) is not None for x in tensors)
    if small and followed and func.namespace == 'aten':
        args, kwargs = tree_map_only(Tensor, known, (args, kwargs))
        if 'device' in kwargs:
            kwargs['device'] = torch.device('cpu')
        with torch.no_grad():
            values = tree_leaves(func(*args, **kwargs))
        for x, value in zip(tree_leaves(out), values, strict=True):
            if isinstance(x, FakeTensor):
                x.known = value  # type: ignore[attr-defined]
    elif leaves and tensors and leaves[0] is tensors[0]:
        # changed in place by what nobody knows
        leaves[0].known = None  # type: ignore[attr-defined]


def moved(gpu: Any, x: Tensor) -> Tensor:
    """A tensor of the host as one of the GPU; one of the GPU as it is."""
    if isinstance(x, FakeTensor):
        return x
    with torch.no_grad(), gpu.fake:
        copy = torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device='cuda:0')
    gpu.allocate(copy)
    if x.numel() <= _SMALL:
        copy.known = x.detach().clone()  # type: ignore[attr-defined]
    return copy


def _copy(gpu: Any, args: Any, kwargs: Any) -> Any:
    """``aten._to_copy``: another dtype, device or layout."""
    x, device = args[0], kwargs.get('device')
    dtype = kwargs.get('dtype') or x.dtype
    if not isinstance(x, FakeTensor):
        if not kwargs.get('non_blocking'):
            gpu.wait('copy to the GPU')
        return moved(gpu, x.to(dtype))
    if device is not None and device.type == 'cpu':
        if not kwargs.get('non_blocking'):
            gpu.wait('copy to the host')
        values = known(x)
        return _plausible(x, dtype) if values is None else values.to(dtype, copy=True)
    kept = kwargs.get('memory_format') in (None, torch.preserve_format)
    if kept and dtype is x.dtype:
        same = x.view(x.shape)  # already where it should be
        same.known = known(x)  # type: ignore[attr-defined]
        return same
    return None


def _copy_into(gpu: Any, args: Any, kwargs: Any) -> Any:
    """``aten.copy_``, which may cross devices."""
    target, source = args[:2]
    if isinstance(target, FakeTensor) == isinstance(source, FakeTensor):
        return None
    if not (args[2] if len(args) > 2 else kwargs.get('non_blocking')):
        gpu.wait(f'copy to the {"GPU" if isinstance(target, FakeTensor) else "host"}')
    if isinstance(target, FakeTensor):
        small = target.numel() <= _SMALL
        target.known = source.expand(target.shape).clone() if small else None
    return target


def _item(gpu: Any, args: Any, kwargs: Any) -> Any:
    """``.item()`` and all that asks for one value."""
    gpu.wait('.item()')
    x = args[0]
    if (values := known(x)) is not None:
        return values.item()
    made_by = getattr(x, 'made_by', '')
    if x.dtype is torch.bool:
        # as a check has it that finds nothing wrong
        return made_by in ('all', 'isfinite', 'eq')
    # zero: what overflowed, in a scaler of gradients
    value = int(made_by not in ('full', 'zeros'))
    return float(value) if x.is_floating_point() else value


def _nonzero(gpu: Any, args: Any, kwargs: Any) -> Any:
    """Every element is taken to be one that counts."""
    gpu.wait(_SIZE)
    x = args[0]
    return x.new_empty(x.numel(), x.ndim, dtype=torch.long)


def _masked_select(gpu: Any, args: Any, kwargs: Any) -> Any:
    gpu.wait(_SIZE)
    return args[0].new_empty(args[1].numel())


def _equal(gpu: Any, args: Any, kwargs: Any) -> Any:
    gpu.wait('a comparison of values')
    return True


# By the operator: what stands in for it, or None to let it run.
HANDLERS: dict[str, Callable[[Any, Any, Any], Any]] = {
    '_to_copy': _copy,
    'copy_': _copy_into,
    '_local_scalar_dense': _item,
    'nonzero': _nonzero,
    'masked_select': _masked_select,
    'equal': _equal,
}


def plain_indices(gpu: Any, name: str, args: Sequence[Any]) -> list[Any]:
    """Arguments of an index operator without masks, as if all of one were True."""
    x, given, *rest = args
    # x[mask] = number is a masked fill, which waits for nothing
    filled = name != 'index' and rest[0].numel() == 1
    indices: list[Any] = []
    for index in given:
        if index is not None and not isinstance(index, FakeTensor):
            gpu.wait('copy to the GPU')
        index = index if index is None else moved(gpu, index)
        if index is None or index.dtype not in (torch.bool, torch.uint8):
            indices.append(index)
            continue
        if not filled:
            gpu.wait(_SIZE)
        indices += [index.new_empty(index.numel(), dtype=torch.long)] * index.ndim
    return [x, indices, *rest]


def _plausible(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Values on the host in the place of those that nobody has computed."""
    if dtype.is_floating_point:
        return torch.rand(x.shape, dtype=torch.float32).to(dtype)
    return torch.full(x.shape, dtype is torch.bool).to(dtype)
