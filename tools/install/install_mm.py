"""Install the OpenMMLab packages that are not there yet.

A package that can be imported stays as it is, whatever its version: the
originals (mmengine, mmcv, mmdet, ...) are never replaced. Versions come from
``requirements/mminstall.txt``.

    python tools/install/install_mm.py --for distill      # no compiler needed
    python tools/install/install_mm.py --for downstream   # detection, ... too
"""

from __future__ import annotations

import argparse
import importlib
import re
import signal
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from cuda_build import InstallError, describe_target
from mmcv_ops import PIP, build_wheel, cached_wheel, wheel_folder

ROOT = Path(__file__).parents[2]
# in an installed package, ROOT is its folder .mim
PACKAGE = ROOT / 'kpu_mm' if (ROOT / 'kpu_mm').is_dir() else ROOT.parent
MMINSTALL = ROOT / 'requirements' / 'mminstall.txt'
# module: distribution, in the order of their needs
DISTILL = {'cv2': 'opencv-python-headless', 'mmengine': 'onedl-mmengine', 'mmcv': 'onedl-mmcv'}
DOWNSTREAM = {
    'imgaug': 'imaug',
    'mmdet': 'onedl-mmdetection',
    'mmseg': 'onedl-mmsegmentation',
    'mmpretrain': 'onedl-mmpretrain',
}


def read_requirements(path: Path) -> dict[str, str]:
    """Read a requirement file.

    Args:
        path: The file.

    Returns:
        For each distribution its line, ``onedl-mmcv==2.3.6``.
    """
    lines = [line.split('#')[0].strip() for line in path.open()]
    return {re.split(r'[=<>]', line)[0]: line for line in lines if line}


def missing(packages: dict[str, str]) -> list[str]:
    """Find what cannot be imported.

    Args:
        packages: Modules and their distributions.

    Returns:
        The distributions whose module is not there.
    """
    importlib.invalidate_caches()
    return [name for module, name in packages.items() if not find_spec(module)]


def pip_install(*arguments: str) -> None:
    """Call pip of this environment; what is put in brings nothing along.

    Args:
        arguments: Requirements, wheels or options.
    """
    command = [*PIP, 'install', '--no-deps', '--no-compile', *arguments]
    subprocess.run(command, check=True)


def why_no_operators() -> str | None:
    """Import mmcv's operators in a process of their own; run one on each GPU.

    Returns:
        The last line of the error, None if they work.
    """
    command = [sys.executable, str(PACKAGE / 'utils' / 'gpu_operators.py')]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode == 0:
        return None
    return (done.stderr.strip().splitlines() or ['no message'])[-1]


def check_ours(requirement: str, error: str) -> None:
    """Raise if the mmcv in the way was not installed by this script.

    Args:
        requirement: What this script installs, ``onedl-mmcv==2.3.6``.
        error: Why its operators do not work.

    Raises:
        InstallError: Somebody else's mmcv.
    """
    name, _, wanted = requirement.partition('==')
    try:
        ours = version(name) == wanted
    except PackageNotFoundError:
        ours = find_spec('mmcv') is None
    if not ours:
        raise InstallError(
            'Detection and segmentation need the compiled operators of mmcv, and those of the mmcv '
            f'in {sys.prefix} do not work here ({error}); it was not installed by kpu_mm and is '
            'left alone: reinstall it with operators, or use a fresh environment.'
        )


def install_operators(requirement: str) -> None:
    """Make mmcv's operators work, on the GPUs too, by a wheel from the cache or a build.

    Args:
        requirement: ``onedl-mmcv==2.3.6``.

    Raises:
        InstallError: It cannot be made to work.
    """
    error = why_no_operators()
    if error is None:
        return
    check_ours(requirement, error)
    folder = wheel_folder(requirement.partition('==')[2])
    wheel = cached_wheel(folder)
    if wheel is not None:
        print(f'mmcv with operators from {wheel}', flush=True)
        pip_install('--force-reinstall', str(wheel))
        if why_no_operators() is None:
            return
        print('The cached wheel does not work; building anew.', flush=True)
        wheel.unlink()
    print('Compiling the operators of mmcv, once: some 10 min on 2 cores.', flush=True)
    wheel = build_wheel(requirement, folder)
    pip_install('--force-reinstall', str(wheel))
    error = why_no_operators()
    if error is not None:
        wheel.unlink()
        raise InstallError(f'mmcv compiled, but does not work: {error}.')


def install(purpose: str) -> None:
    """Install what a purpose needs.

    Args:
        purpose: ``distill`` or ``downstream``.
    """
    requirements = read_requirements(MMINSTALL)
    packages = DISTILL if purpose == 'distill' else DISTILL | DOWNSTREAM
    wanted = missing(packages)
    operators = purpose == 'downstream'
    if operators and 'onedl-mmcv' in wanted:
        wanted.remove('onedl-mmcv')
    if wanted:
        pip_install(*[requirements[name] for name in wanted])
    if operators:
        install_operators(requirements['onedl-mmcv'])
    if (left_out := describe_target(not operators)) is not None:
        print(left_out, flush=True)


def main() -> int:
    """Read the command line, install.

    Returns:
        The exit code.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        '--for', dest='purpose', choices=['distill', 'downstream'], default='downstream'
    )
    # so that a terminated build ends its compilers, as an interrupted one
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        install(parser.parse_args().purpose)
    except InstallError as error:
        print(error, file=sys.stderr)
        return 1
    except subprocess.CalledProcessError as error:
        print(f'{error.cmd[-1]}: pip failed, see above.', file=sys.stderr)
        return error.returncode
    except KeyboardInterrupt:
        print('Interrupted; nothing half-built was kept.', file=sys.stderr)
        return 130
    return 0


if __name__ == '__main__':
    sys.exit(main())
