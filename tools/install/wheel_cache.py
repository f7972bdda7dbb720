"""Keep wheels that took long to compile.

They lie in ``$KPU_MM_CACHE/wheels`` (``~/.cache/kpu_mm/wheels``), one folder
for each combination of all that their binary depends on.
"""

from __future__ import annotations

import os
import platform
import re
import sys
import sysconfig
import zipfile
from pathlib import Path


def cache_key(mmcv: str, torch_version: str, device: str) -> str:
    """Name everything that the binary of a wheel depends on.

    Args:
        mmcv: The version of mmcv.
        torch_version: The version of torch with its local part.
        device: ``cpu``, or ``cuda`` with the architectures compiled for.

    Returns:
        A folder name.
    """
    libc = ''.join(platform.libc_ver())
    parts = [
        f'mmcv{mmcv}',
        f'torch{torch_version}',
        device,
        f'{sys.implementation.cache_tag}',
        sysconfig.get_platform(),
        libc,
    ]
    return re.sub(r'[^\w.+-]', '_', '-'.join(part for part in parts if part))


def target_device() -> str:
    """Tell what mmcv's setup will compile for on this machine.

    Returns:
        ``cpu``, or ``cuda`` with its architectures.
    """
    import torch

    if os.environ.get('FORCE_CUDA') != '1' and not torch.cuda.is_available():
        return 'cpu'
    listed = os.environ.get('TORCH_CUDA_ARCH_LIST')
    found = {
        '{}.{}'.format(*torch.cuda.get_device_capability(i))
        for i in range(torch.cuda.device_count())
    }
    return 'cuda' + (listed or ';'.join(sorted(found)))


def wheel_folder(mmcv: str) -> Path:
    """Find the place of the wheel that fits this environment.

    Args:
        mmcv: The version of mmcv.

    Returns:
        A folder that exists, with the wheel in it if it was built before.
    """
    import torch

    root = os.environ.get('KPU_MM_CACHE') or '~/.cache/kpu_mm'
    key = cache_key(mmcv, torch.__version__, target_device())
    folder = Path(root).expanduser() / 'wheels' / key
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def cached_wheel(folder: Path) -> Path | None:
    """Find a whole wheel; a damaged one is removed.

    Args:
        folder: The result of :func:`wheel_folder`.

    Returns:
        The wheel, None if there is none.
    """
    for wheel in sorted(folder.glob('*.whl')):
        try:
            with zipfile.ZipFile(wheel) as archive:
                damaged = archive.testzip() is not None
        except zipfile.BadZipFile:
            damaged = True
        if not damaged:
            return wheel
        print(f'{wheel} is damaged; it will be built again.', flush=True)
        wheel.unlink()
    return None
