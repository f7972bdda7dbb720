"""The version gate: what must be there before anything else is imported.

Versions are read from the metadata of the installed distributions, so that
the gate costs milliseconds and no library is imported to be turned down.
"""

from __future__ import annotations

import re
import warnings
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import NamedTuple


class Requirement(NamedTuple):
    """A library that ``import kpu_mm`` cannot do without.

    Args:
        module: The name it is imported by.
        minimum: The oldest version that works.
        distributions: The names it is installed by; the first one is the one
            to install where there is none.
        install: The command that installs it where there is none.
    """

    module: str
    minimum: str
    distributions: tuple[str, ...]
    install: str


REQUIREMENTS = (
    Requirement(
        'torch', '2.4', ('torch',), "pip install 'torch>=2.4' torchvision"
    ),
    Requirement(
        'transformers',
        '4.56',
        ('transformers',),
        "pip install 'transformers>=4.56,<5'",
    ),
    Requirement(
        'mmengine',
        '0.10.0',
        ('onedl-mmengine', 'mmengine', 'mmengine-lite'),
        'pip install onedl-mmengine==0.10.12',
    ),
    Requirement(
        'mmcv',
        '2.0.0',
        ('onedl-mmcv', 'mmcv', 'mmcv-lite'),
        'pip install onedl-mmcv==2.3.6',
    ),
)


def release(text: str) -> tuple[int, ...]:
    """Give the numbers of a version that can be compared.

    Args:
        text: A version such as ``2.10.0+cu128`` or ``2.4.0rc1``.

    Returns:
        Three numbers or more, here (2, 10, 0) and (2, 4, 0).
    """
    match = re.match(r'\d+(?:\.\d+)*', text)
    if match is None:
        raise ValueError(f'{text!r} is not a version.')
    numbers = [int(part) for part in match.group().split('.')]
    return tuple(numbers + [0] * (3 - len(numbers)))


def installed(names: tuple[str, ...]) -> tuple[str, str] | None:
    """Find which of some distributions is installed.

    Args:
        names: Distributions that give the same module.

    Returns:
        Name and version of the first one found, None if there is none.
    """
    for name in names:
        try:
            return name, version(name)
        except PackageNotFoundError:
            continue
    return None


def check_requirement(requirement: Requirement) -> None:
    """Raise if a library is missing or too old.

    Args:
        requirement: The library.

    Raises:
        ImportError: One sentence with the command that cures it.
    """
    module, minimum, distributions, install = requirement
    found = installed(distributions)
    if found is None:
        # A source tree on PYTHONPATH has no metadata; it is the user's word.
        if find_spec(module) is None:
            raise ImportError(
                f'kpu_mm needs {module} >= {minimum}, and it is not '
                f'installed: run `{install}`.'
            )
        return
    name, present = found
    if release(present) < release(minimum):
        raise ImportError(
            f'kpu_mm needs {module} >= {minimum}, but {name} {present} is '
            f"installed: run `pip install --upgrade '{name}>={minimum}'`."
        )


def warn_of_known_faults() -> None:
    """Warn of installed releases that are known to compute wrongly."""
    mmdet = installed(('onedl-mmdetection',))
    if mmdet and (3, 4, 6) <= release(mmdet[1]) <= (3, 5, 1):
        warnings.warn(
            f'onedl-mmdetection {mmdet[1]} builds the DINO decoder in a shape '
            'that no released checkpoint fits, and its GroundingDINO fails in '
            'every forward: run `pip install --no-deps '
            'onedl-mmdetection==3.4.5`.',
            stacklevel=3,
        )
    transformers = installed(('transformers',))
    mmpretrain = installed(('onedl-mmpretrain', 'mmpretrain'))
    if transformers and mmpretrain and release(transformers[1]) >= (5, 0, 0):
        warnings.warn(
            f'{mmpretrain[0]} {mmpretrain[1]}, and mmdet with it, does not '
            f'work with transformers {transformers[1]}: run '
            "`pip install 'transformers>=4.56,<5'`.",
            stacklevel=3,
        )


def check_versions() -> None:
    """Check every library that ``import kpu_mm`` needs.

    Raises:
        ImportError: A library is missing or too old.
    """
    for requirement in REQUIREMENTS:
        check_requirement(requirement)
    warn_of_known_faults()
