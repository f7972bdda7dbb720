"""What stands in for CUDA and its kernels while there is no GPU."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.overrides import TorchFunctionMode

from kpu_mm.models.layers.deform_attention import fused_deformable_attention

from .fake_gpu import GPU, FakeGPU

aten = torch.ops.aten
_CUDA, _META = 1, 14  # of C++'s enumeration DeviceType
_PART = 'rehearsed_part'
_ATTENTION = F.scaled_dot_product_attention


@contextmanager
def fake_gpu(part_of: Mapping[nn.Module, str]) -> Iterator[FakeGPU]:
    """Let this process have a GPU that computes nothing.

    Args:
        part_of: The part that a module belongs to, for those that have one.

    Yields:
        The GPU.
    """
    gpu = FakeGPU()
    for module, part in part_of.items():
        setattr(module, _PART, part)  # copies of a module have it too
    lift = torch._C._only_lift_cpu_tensors()

    def enter(module: nn.Module, _: Any) -> None:
        if part := getattr(module, _PART, None):
            gpu.parts.append(part)

    def leave(module: nn.Module, *_: Any) -> None:
        if hasattr(module, _PART):
            gpu.parts.pop()

    with ExitStack() as stack:
        for target, replacement in {
            'mmengine.device.utils.DEVICE': 'cuda',
            **_kernels(),
            'torch.nn.functional.scaled_dot_product_attention': _attention,
            'torch.cuda._lazy_init': lambda: None,
            'torch.cuda.is_available': lambda: True,
            'torch.cuda.is_initialized': lambda: False,
            'torch.cuda.is_bf16_supported': lambda *_, **__: True,
            'torch.cuda.is_current_stream_capturing': lambda: False,
            'torch.cuda.device_count': lambda: 1,
            'torch.cuda.current_device': lambda: 0,
            'torch.cuda.get_device_capability': lambda *_: (9, 0),
            # for those who keep the random state, as FAMO's second forward
            'torch.cuda.get_rng_state': lambda *_: torch.zeros(16, dtype=torch.uint8),
            'torch.cuda.set_rng_state': lambda *_: None,
            'torch.cuda._exchange_device': lambda _: 0,
            'torch.cuda._maybe_exchange_device': lambda _: 0,
            'torch.cuda.synchronize': lambda *_: gpu.wait('synchronize'),
            'torch.cuda.Event': lambda *_: SimpleNamespace(
                record=lambda: None, synchronize=lambda: gpu.wait('an event')
            ),
            'torch._subclasses.fake_tensor.init_gpu_context': lambda _: None,
            # at once, not value by value
            'torch._subclasses.fake_tensor.FakeTensor.tolist': lambda x: x.cpu().tolist(),
            'torch.optim.optimizer._foreach_supported_types': [nn.Parameter, FakeTensor],
            'torch.utils._foreach_utils._foreach_supported_types': [nn.Parameter, FakeTensor],
        }.items():
            stack.enter_context(mock.patch(target, replacement))
        _let_switch_to_gpu(stack)
        torch._C._set_only_lift_cpu_tensors(True)
        stack.callback(torch._C._set_only_lift_cpu_tensors, lift)
        hooks = nn.modules.module
        stack.enter_context(hooks.register_module_forward_pre_hook(enter))
        stack.enter_context(hooks.register_module_forward_hook(leave, always_call=True))
        stack.enter_context(_Calls(gpu))
        stack.enter_context(gpu)
        yield gpu


def _kernels() -> dict[str, Any]:
    """Kernels that mmcv has on a GPU, if its operators are installed."""
    fused = 'kpu_mm.models.layers.deform_attention.has_fused_kernel'
    try:
        import mmcv.ops  # noqa: F401
    except ImportError:  # enough for distillation, which then does without
        return {fused: lambda: False}
    kernels: dict[str, Any] = {
        fused: lambda: True,
        'mmcv.ops.multi_scale_deform_attn.multi_scale_deformable_attn_pytorch': _sample,
    }
    if find_spec('mmdet'):
        kernels['mmdet.models.losses.focal_loss._sigmoid_focal_loss'] = _focal_loss
    return kernels


def _let_switch_to_gpu(stack: ExitStack) -> None:
    """Let C++ switch to the GPU that is not there, which does nothing.

    A build of torch with CUDA has a function for that. One without has no
    entry for CUDA in C++'s table of devices: it gets that of 'meta'.
    """
    torch._C._ensureCUDADeviceGuardSet()
    name = 'libc10.dylib' if sys.platform == 'darwin' else 'libc10.so'
    library = ctypes.CDLL(str(Path(torch.__file__).parent / 'lib' / name))
    # c10::impl::device_guard_impl_registry, pointers by DeviceType
    symbol = '_ZN3c104impl26device_guard_impl_registryE'
    table = (ctypes.c_void_p * (_META + 1)).in_dll(library, symbol)
    stack.callback(table.__setitem__, _CUDA, table[_CUDA])
    table[_CUDA] = table[_CUDA] or table[_META]


class _Calls(TorchFunctionMode):
    """Calls for which torch, in C++, would look for a GPU."""

    def __init__(self, gpu: FakeGPU) -> None:
        super().__init__()
        self.gpu = gpu

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is torch.Tensor.cuda:
            func, args = torch.Tensor.to, (args[0], GPU, *args[2:])
        if func is torch.Tensor.to:
            # without a number it would be the current device's
            args = [GPU if _is_gpu(x) else x for x in args]
            kwargs = {k: GPU if _is_gpu(x) else x for k, x in kwargs.items()}
        elif func is torch.Tensor.pin_memory:
            return args[0]  # tensors of the host are taken to be page-locked
        elif func is torch.Tensor.backward:
            # the engine would look for the streams of the first gradient
            with self.gpu.nowhere():
                return func(*args, **kwargs)
        return func(*args, **kwargs)


def _is_gpu(x: Any) -> bool:
    return isinstance(x, str | torch.device) and str(x) == 'cuda'


def _sample(value: Tensor, shapes: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
    """MMCV's deformable attention; its result depends on no level's size."""
    sides = [1] * shapes.numel()
    return fused_deformable_attention(value, sides, locations, weights.to(value.dtype))


def _focal_loss(logits: Tensor, *_: Any) -> Tensor:
    """MMCV's focal loss, (N, C) -> (N, C): one kernel, and one backward."""
    if not len(logits):
        raise RuntimeError("mmcv's focal loss on a GPU takes no empty batch.")
    return logits.sigmoid()


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """The kernel that torch would choose on a GPU."""
    if query.device != GPU:
        return _ATTENTION(query, key, value, attn_mask, dropout_p, is_causal, scale=scale)
    if query.ndim == 3:  # (B * heads, N, C), which the kernels do not take
        mask = None if attn_mask is None else attn_mask[None]
        apart = query[None], key[None], value[None], mask
        return _attention(*apart, dropout_p, is_causal, scale)[0]
    if torch.is_autocast_enabled('cuda'):
        dtype = torch.get_autocast_dtype('cuda')
        query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
    if attn_mask is None and query.dtype in (torch.float16, torch.bfloat16):
        flash = aten._scaled_dot_product_flash_attention
        return flash(query, key, value, dropout_p, is_causal, scale=scale)[0]
    if attn_mask is not None and attn_mask.dtype is torch.bool:
        attn_mask = torch.zeros_like(attn_mask, dtype=query.dtype)
    if attn_mask is not None:
        shape = (*query.shape[:-1], key.shape[-2])
        attn_mask = attn_mask.to(query.dtype).expand(shape)
    efficient = aten._scaled_dot_product_efficient_attention
    trains = torch.is_grad_enabled() and query.requires_grad
    return efficient(query, key, value, attn_mask, trains, dropout_p, is_causal, scale=scale)[0]
