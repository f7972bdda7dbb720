"""What a bug report needs: ``kpu-mm doctor`` describes the installation as plain text."""

from __future__ import annotations

import argparse
import os
import platform
import re
import shlex
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

import torch
from huggingface_hub import constants

from kpu_mm.version import __version__

from .gpu_operators import operators_fault
from .startup import REQUIREMENTS, installed

PACKAGE = Path(__file__).parents[1]
# modules and the distributions that they may come from
REQUIRED = {
    **{module: names for module, _, _, names in REQUIREMENTS},
    'torchvision': ('torchvision',),
    'numpy': ('numpy',),
    'timm': ('timm',),
    'open_clip': ('open-clip-torch',),
    'huggingface_hub': ('huggingface-hub',),
    'safetensors': ('safetensors',),
}
DOWNSTREAM = {
    'mmdet': ('onedl-mmdetection', 'mmdet'),
    'mmseg': ('onedl-mmsegmentation', 'mmsegmentation'),
    'mmpretrain': ('onedl-mmpretrain', 'mmpretrain'),
}
# module: what it is for, what pip installs
OPTIONAL = {
    'onnx': ('export as ONNX', 'onnx onnxscript'),
    'onnxruntime': ('export as ONNX', "'onnxruntime>=1.17'"),
    'datasets': ('Hugging Face datasets as image sources', "'datasets>=4,<5'"),
    'tensorboard': ('curves in TensorBoard', 'tensorboard'),
    'gradio': ('the demo page', "'gradio>=6,<7'"),
}
# settings that change what runs or where files are; those of tokens are left out
_VARIABLES = re.compile(
    'CUDA_|TORCH_|HF_HOME|HF_HUB_(CACHE|OFFLINE)|TRANSFORMERS_OFFLINE|OMP_NUM|KPU_MM_|XDG_CACHE'
)


def require_toolbox(scope: str | None, who: str) -> None:
    """Refuse what needs a toolbox of OpenMMLab that is not installed.

    Args:
        scope: A config's ``default_scope``.
        who: What needs it, for the message.

    Raises:
        ImportError: If the scope is that of a missing toolbox.
    """
    if scope in DOWNSTREAM and find_spec(scope) is None:
        raise ImportError(f'{who} needs {scope}, not installed here: run `make install`.')


def describe_packages() -> Iterator[str]:
    """Give a line for each package that is installed."""
    for module, names in {**REQUIRED, **DOWNSTREAM, **{m: (m,) for m in OPTIONAL}}.items():
        if (found := installed(*names)) is not None:
            name, release = found
            origin = '' if name.replace('-', '_') == module else f' ({name})'
            yield f'{module} {release}{origin}'
        elif find_spec(module):
            yield f'{module}, a source tree without a version'


def describe_devices() -> Iterator[str]:
    """Give a line for the processor, its memory, and each GPU."""
    memory = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
    shared = shutil.disk_usage('/dev/shm').total if Path('/dev/shm').is_dir() else 0
    cores = len(os.sched_getaffinity(0))
    yield f'CPU: {cores} cores, {_size(memory)} of memory, {_size(shared)} in /dev/shm'
    for gpu in range(torch.cuda.device_count()):
        found = torch.cuda.get_device_properties(gpu)
        architecture = f'{found.major}.{found.minor}'
        memory = found.total_memory
        yield f'GPU {gpu}: {found.name}, architecture {architecture}, {_size(memory)}'
    if not torch.cuda.device_count():
        built = f'CUDA {torch.version.cuda}' if torch.version.cuda else 'the CPU alone'
        yield f'no GPU that torch sees; torch is built for {built}'


def describe_kernels(gpus: Sequence[int]) -> Iterator[str]:
    """Say which operators run here.

    Args:
        gpus: Numbers of the GPUs.
    """
    fault = operators_fault(tuple(gpus), cuda=bool(gpus))
    where = 'each GPU' if gpus else 'the CPU'
    yield fault or f"mmcv's operators are compiled, for {where}"
    kernel = "mmcv's CUDA kernel" if gpus and not fault else "torch's grid_sample"
    yield f'deformable attention of the adapter: {kernel}'


def describe_caches() -> Iterator[str]:
    """Give place and size of all that is kept between runs."""
    home = Path('~/.cache').expanduser()
    ours = Path(os.environ.get('KPU_MM_CACHE') or home / 'kpu_mm').expanduser()
    index = Path(os.environ.get('XDG_CACHE_HOME') or home).expanduser() / 'kpu_mm' / 'index'
    folders = {
        'models of the hub': Path(constants.HF_HUB_CACHE),
        'weights of open_clip': home / 'clip',
        'weights of torch': Path(torch.hub.get_dir()),
        'compiled mmcv': ours / 'wheels',
        'indexes of images': index,
    }
    for name, folder in folders.items():
        # the hub's snapshots are links to its files
        files = [f for f in folder.rglob('*') if f.is_file() and not f.is_symlink()]
        size = _size(sum(f.stat().st_size for f in files)) if files else 'empty'
        yield f'{name}: {folder}, {size}'


def describe_missing(gpus: Sequence[int]) -> Iterator[str]:
    """Say what is not there, what it is for, and which command installs it.

    Args:
        gpus: Numbers of the GPUs, for which mmcv's operators must be compiled.
    """
    absent = [m for m in DOWNSTREAM if not find_spec(m)]
    if operators_fault(tuple(gpus), cuda=bool(gpus)):
        absent.append("mmcv's operators")
    if absent:
        yield f'{", ".join(absent)} (detection, segmentation, classification): {install_command()}'
    for module, (purpose, names) in OPTIONAL.items():
        if not find_spec(module):
            yield f'{module} ({purpose}): {shlex.quote(sys.executable)} -m pip install {names}'


def install_command() -> str:
    """Give the command that installs all that OpenMMLab's toolboxes need."""
    python = shlex.quote(sys.executable)
    # an editable install lies in its clone, a wheel does not
    if (PACKAGE.parent / 'Makefile').is_file():
        return f'make -C {shlex.quote(str(PACKAGE.parent))} install PY={python}'
    script = shlex.quote(str(PACKAGE / '.mim' / 'tools' / 'install' / 'install_mm.py'))
    return f"{python} -m pip install 'kpu_mm[downstream]' && {python} {script} --for downstream"


def _size(count: int) -> str:
    amount = float(count)
    for unit in ('bytes', 'kB', 'MB', 'GB'):
        if amount < 1000 or unit == 'GB':
            break
        amount /= 1000
    return f'{amount:.3g} {unit}'


def main(argv: Sequence[str] | None = None) -> int:
    """Print the report.

    Args:
        argv: The arguments. Defaults to None, those of the command line.

    Returns:
        The exit code, 0.
    """
    parser = argparse.ArgumentParser(
        prog='kpu-mm doctor',
        description='Print versions, devices, kernels, caches and what is missing, for a bug '
        'report. It holds paths of this machine, and no tokens.',
        epilog='example: kpu-mm doctor > report.txt',
    )
    parser.parse_args(argv)
    gpus = range(torch.cuda.device_count())
    python = f'Python {platform.python_version()} in {sys.executable}'
    sections: dict[str, Iterable[str]] = {
        f'kpu_mm {__version__}': [f'in {PACKAGE}', python, platform.platform()],
        'Packages': describe_packages(),
        'Devices': describe_devices(),
        'Kernels': describe_kernels(gpus),
        'Caches': describe_caches(),
        'Environment': (f'{k}={v}' for k, v in sorted(os.environ.items()) if _VARIABLES.match(k)),
        'Missing': describe_missing(gpus),
    }
    for title, lines in sections.items():
        sys.stdout.write('\n  '.join([title, *(list(lines) or ['nothing'])]) + '\n')
    return 0
