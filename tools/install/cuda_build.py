"""Whether operators can be compiled for CUDA here, and for which GPUs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path


class InstallError(Exception):
    """Something the user has to put right; the message says how."""


LOGIN_NODE = (
    "for a machine with GPUs run `FORCE_CUDA=1 TORCH_CUDA_ARCH_LIST='8.0;9.0' make install` with "
    'the architectures of its GPUs (A100: 8.0, H100: 9.0)'
)


def target_device() -> str:
    """Tell what mmcv's setup will compile for on this machine.

    Returns:
        ``cpu``, or ``cuda`` with its architectures.
    """
    import torch

    if os.environ.get('FORCE_CUDA') != '1' and not torch.cuda.is_available():
        return 'cpu'
    return 'cuda' + (os.environ.get('TORCH_CUDA_ARCH_LIST') or ';'.join(visible_architectures()))


def visible_architectures() -> list[str]:
    """Give the architectures of the GPUs of this machine, such as ``9.0``."""
    import torch

    if not torch.cuda.is_available():
        return []
    count = torch.cuda.device_count()
    return sorted({'{}.{}'.format(*torch.cuda.get_device_capability(i)) for i in range(count)})


def describe_target(distill: bool) -> str | None:
    """Say what an installation leaves out for GPUs.

    Args:
        distill: Whether it is for distillation alone, without operators.

    Returns:
        A sentence, None if nothing is left out.
    """
    import torch

    if target_device() != 'cpu':
        if distill:
            return (
                "Without mmcv's operators, deformable attention takes torch's grid_sample on the "
                'GPU, which needs more memory; `make install` compiles the CUDA kernel.'
            )
        return None
    if torch.version.cuda is None:
        if shutil.which('nvidia-smi') is None:
            return None
        return (
            f'torch {torch.__version__} was built without CUDA and will not use the GPU of this '
            'machine; install a CUDA build (https://pytorch.org/get-started).'
        )
    if distill:
        return None
    return f"torch sees no GPU here, so mmcv's operators are for the CPU alone; {LOGIN_NODE}."


def check_cuda() -> None:
    """Raise if operators for CUDA cannot be compiled, or not for the GPUs here.

    Raises:
        InstallError: torch without CUDA, no nvcc or one of another CUDA, or a
            list of architectures that is missing or leaves out a GPU.
    """
    import torch

    # AMD's compiler is mmcv's own affair.
    if torch.version.hip is not None:
        return
    wanted = torch.version.cuda
    if wanted is None:
        raise InstallError(
            f'FORCE_CUDA=1 asks for CUDA, but torch {torch.__version__} was built without it: '
            'install a CUDA build (https://pytorch.org/get-started).'
        )
    release = nvcc_release()
    if release.split('.')[0] != wanted.split('.')[0]:
        raise InstallError(
            f'nvcc is of CUDA {release}, but torch {torch.__version__} uses CUDA {wanted}: set '
            f'CUDA_HOME to a CUDA toolkit {wanted}, or install a torch for CUDA {release}.'
        )
    listed, visible = os.environ.get('TORCH_CUDA_ARCH_LIST', ''), visible_architectures()
    if not listed and not visible:
        raise InstallError(
            'FORCE_CUDA=1 without a GPU here needs to know which GPUs to compile for: '
            f'{LOGIN_NODE}.'
        )
    left_out = [arch for arch in visible if not covers(listed, arch)]
    if left_out:
        raise InstallError(
            f'TORCH_CUDA_ARCH_LIST={listed} leaves out the GPUs of architecture '
            f'{" and ".join(left_out)} that are here: add them, or leave it unset.'
        )


def nvcc_release() -> str:
    """Give the CUDA version of the compiler that torch will call.

    Returns:
        For example ``12.8``.

    Raises:
        InstallError: There is no nvcc.
    """
    import torch
    from torch.utils.cpp_extension import CUDA_HOME

    nvcc = Path(CUDA_HOME or '', 'bin', 'nvcc')
    if not CUDA_HOME or not nvcc.is_file():
        where = f'CUDA_HOME={CUDA_HOME} has no bin/nvcc' if CUDA_HOME else 'there is no nvcc'
        raise InstallError(
            f"mmcv's operators cannot be compiled for the GPU, as {where}: install the CUDA "
            f'toolkit {torch.version.cuda} (on a cluster `module load cuda`) and set CUDA_HOME to '
            'it; or compile for the CPU alone with `CUDA_VISIBLE_DEVICES= make install`.'
        )
    told = subprocess.run([nvcc, '--version'], capture_output=True, text=True).stdout
    match = re.search(r'release (\d+\.\d+)', told)
    if match is None:
        raise InstallError(f'{nvcc} --version states no release; set CUDA_HOME to another toolkit.')
    return match[1]


def covers(listed: str, architecture: str) -> bool:
    """Tell whether code for some architectures runs on a GPU.

    Args:
        listed: A TORCH_CUDA_ARCH_LIST, such as ``8.0;9.0+PTX``; '' for the
            visible GPUs.
        architecture: That of the GPU, such as ``9.0``.
    """
    numbers = re.findall(r'(\d+)\.(\d+)(a?)(\+PTX)?', listed)
    # A name, such as Hopper or native, is left to torch.
    if not numbers or re.search(r'[A-Z][a-z]|native', listed):
        return True
    major, minor = map(int, architecture.split('.'))
    for *version, special, ptx in numbers:
        first = tuple(map(int, version))
        # Code runs on later GPUs of the same generation, PTX on all later ones.
        if first == (major, minor) or (
            not special and first <= (major, minor) and (ptx or first[0] == major)
        ):
            return True
    return False
