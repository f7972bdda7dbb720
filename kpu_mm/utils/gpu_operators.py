"""Whether mmcv's compiled operators run on GPUs.

``tools/install`` runs this file as a script, before kpu_mm can be imported.
"""

from __future__ import annotations

import os
import sys
from functools import cache

import torch

_ANEW = 'run `make install` where the GPU is, or as docs/install.md says for a login node'


@cache
def operators_fault(gpus: tuple[int, ...], cuda: bool = True) -> str | None:
    """Say why mmcv's operators do not run.

    ``import mmcv.ops`` succeeds with operators for the CPU alone, for another
    CUDA and for other GPUs, so a kernel is run on each GPU.

    Args:
        gpus: Numbers of the GPUs to run on.
        cuda: Whether they must be compiled for CUDA. Defaults to True.

    Returns:
        The beginning of a sentence, None if they run.
    """
    try:
        from mmcv.ops import get_compiling_cuda_version
        from mmcv.ops.multi_scale_deform_attn import ext_module
    except ImportError as error:
        return f'mmcv has no operators that can be imported ({error})'
    if not cuda:
        return None
    built, used = get_compiling_cuda_version(), torch.version.cuda
    if built == 'not available':
        return "mmcv's operators were compiled without CUDA"
    # For AMD's GPUs mmcv states no version.
    if used and built.split('.')[0] != used.split('.')[0]:
        return f"mmcv's operators were compiled for CUDA {built}, and torch for CUDA {used}"
    for gpu in gpus:
        # Two heads of two channels look at the middle of 2 x 2 cells.
        value = torch.ones(1, 4, 2, 2, device=f'cuda:{gpu}')
        shapes = torch.tensor([[2, 2]], device=value.device)
        middle = value.new_full((1, 1, 2, 1, 1, 2), 0.5)
        inputs = (value, shapes, shapes.new_zeros(1), middle, torch.ones_like(middle[..., 0]))
        name = '{} (architecture {}.{}'.format(
            torch.cuda.get_device_name(gpu), *torch.cuda.get_device_capability(gpu)
        )
        try:
            out = ext_module.ms_deform_attn_forward(*inputs, im2col_step=1)
        except RuntimeError as error:
            return f"mmcv's operators do not run on {name}; {str(error).splitlines()[0]})"
        # A kernel that was not compiled for this GPU leaves zeros.
        if not (out == 1).all():
            return f"mmcv's operators were not compiled for {name})"
    return None


def advice(fault: str) -> str:
    """Complete a fault to a sentence that says what to do.

    Args:
        fault: The result of :func:`operators_fault`.
    """
    return f'{fault}: {_ANEW}.'


if __name__ == '__main__':
    # FORCE_CUDA is mmcv's way to compile for GPUs that are not here.
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    sys.exit(operators_fault(tuple(range(count)), bool(count) or os.getenv('FORCE_CUDA') == '1'))
