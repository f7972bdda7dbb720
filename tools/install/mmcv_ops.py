"""Build a wheel of mmcv with its compiled operators, and keep it.

There are no wheels for current torch, so the source distribution is compiled
against the torch that is installed. Wheels are kept in
``$KPU_MM_CACHE/wheels`` (``~/.cache/kpu_mm/wheels``), one folder for each
combination of all that their binary depends on.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import zipfile
from pathlib import Path

from cuda_build import InstallError, check_cuda, target_device
from packaging.version import Version

BUILD_TOOLS = ['setuptools>=77,<81', 'wheel', 'ninja', 'psutil', 'packaging']
PIP = [sys.executable, '-m', 'pip', '--disable-pip-version-check']


def cpp_standard(torch_version: str) -> str:
    """Give the C++ standard that torch's headers ask for.

    Args:
        torch_version: For example ``2.10.0+cu128``.

    Returns:
        ``c++17``, from torch 2.12 on ``c++20``.
    """
    return 'c++20' if Version(torch_version).release >= (2, 12) else 'c++17'


def set_cpp_standard(setup: Path, standard: str) -> None:
    """Write the C++ standard into mmcv's setup.py.

    Args:
        setup: The setup.py of an unpacked source distribution.
        standard: The result of :func:`cpp_standard`.
    """
    text = setup.read_text(encoding='utf-8')
    setup.write_text(re.sub(r'-std=c\+\+\d\d', f'-std={standard}', text), encoding='utf-8')


def check_compiler() -> None:
    """Raise if there is nothing to compile with.

    Raises:
        InstallError: No C++ compiler or no Python headers.
    """
    compiler = os.environ.get('CXX', 'c++').split()[0]
    header = Path(sysconfig.get_path('include')) / 'Python.h'
    if shutil.which(compiler) is None:
        raise InstallError(
            f'mmcv has no wheel for this torch and there is no C++ compiler ({compiler}) to build '
            'it with: install one (Debian, Ubuntu: `apt install build-essential`).'
        )
    if not header.is_file():
        raise InstallError(
            f'mmcv is compiled against {header}, which is missing: install the headers of this '
            'Python (Debian, Ubuntu: '
            f'`apt install python{sys.version_info[0]}.{sys.version_info[1]}-dev`).'
        )


def build_environment(tools: Path) -> dict[str, str]:
    """Give the environment variables of the build.

    Args:
        tools: A folder with the build tools, so that the user's own versions
            of them stay as they are.

    Returns:
        The environment; what the user has set goes first.
    """
    cores = len(os.sched_getaffinity(0))
    memory = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
    # one compiler takes up to 2 GB
    jobs = max(1, min(cores, memory // 2**31))
    # Python's own -O3 -g takes nearly three times as long
    flags = {'CFLAGS': '-O2 -g0', 'CXXFLAGS': '-O2 -g0', 'MAX_JOBS': str(jobs)}
    paths = {'PYTHONPATH': tools, 'PATH': tools / 'bin'}
    # pip's own leftovers of a killed build go where the tools go
    scratch = {'PYTHONUNBUFFERED': '1', 'TMPDIR': str(tools.parent)}
    env = {**flags, **os.environ, **scratch}
    for name, first in paths.items():
        rest = os.environ.get(name)
        env[name] = f'{first}{os.pathsep}{rest}' if rest else str(first)
    return env


def fetch_source(requirement: str, folder: Path, env: dict[str, str]) -> Path:
    """Download and unpack a source distribution.

    Args:
        requirement: Distribution and version.
        folder: Where to.
        env: The environment variables of the build.

    Returns:
        The folder of its setup.py.
    """
    command = [*PIP, 'download', '--quiet', '--no-deps', '--no-binary', ':all:']
    command += ['--no-build-isolation', '--dest', str(folder), requirement]
    subprocess.run(command, check=True, env=env)
    with tarfile.open(next(folder.glob('*.tar.gz'))) as archive:
        archive.extractall(folder)
    return next(folder.glob('*/setup.py')).parent


def run_build(command: list[str], log: Path, env: dict[str, str]) -> None:
    """Run a build whose output goes to a file.

    Args:
        command: The program and its arguments.
        log: The file that takes the output of the build.
        env: The environment of the build.

    Raises:
        InstallError: The build failed; with the end of its log.
    """
    with log.open('w') as file:
        # A session of its own, so that compilers end with the build and
        # don't outlive an interrupted one.
        process = subprocess.Popen(
            command, env=env, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            process.wait()
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
    if process.returncode:
        lines = log.read_text(errors='replace').splitlines()
        end = '\n'.join(lines[-30:])
        raise InstallError(f'{end}\nmmcv did not compile; the whole output is in {log}.')


def build_wheel(requirement: str, folder: Path) -> Path:
    """Compile mmcv with its operators.

    Args:
        requirement: Distribution and version, ``onedl-mmcv==2.3.6``.
        folder: Where the wheel goes, whole or not at all.

    Returns:
        The wheel.

    Raises:
        InstallError: It cannot be compiled here.
    """
    import torch

    check_compiler()
    if target_device() != 'cpu':
        check_cuda()
    log = folder / 'build.log'
    # in the end the folder only sees a rename: no half wheel is ever there
    with tempfile.TemporaryDirectory(prefix='kpu_mm-') as scratch_name:
        scratch = Path(scratch_name)
        tools, out = scratch / 'tools', scratch / 'out'
        install_tools = [*PIP, 'install', '--quiet', '--no-warn-conflicts']
        install_tools += ['--target', str(tools), *BUILD_TOOLS]
        subprocess.run(install_tools, check=True)
        env = build_environment(tools)
        source = fetch_source(requirement, scratch, env)
        set_cpp_standard(source / 'setup.py', cpp_standard(torch.__version__))
        command = [*PIP, 'wheel', '--verbose', '--no-deps']
        command += ['--no-build-isolation', '--wheel-dir', str(out)]
        print(f'The output of the compiler goes to {log}.', flush=True)
        run_build([*command, str(source)], log, env)
        built = next(out.glob('*.whl'))
        part = folder / f'{built.name}.part-{os.getpid()}'
        shutil.copyfile(built, part)
        part.replace(folder / built.name)
    return folder / built.name


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
