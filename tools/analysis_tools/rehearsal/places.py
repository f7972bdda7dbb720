"""Where in the sources something happens."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from traceback import walk_tb
from typing import Any

import torch

_TORCH = str(Path(torch.__file__).parent)
_HERE = str(Path(__file__).parent)
_TOOL = str(Path(__file__).parents[1] / 'rehearse.py')
_ROOT = Path(__file__).parents[3]


def where() -> str:
    """File and line of the caller, in this project and outside of torch."""
    places = []
    frame: Any = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename != _TOOL:
        places.append((frame.f_code.co_filename, frame.f_lineno))
        frame = frame.f_back
    return _describe(places)


def place_of(error: BaseException) -> str:
    """File and line where an error was raised, likewise.

    Args:
        error: The error.
    """
    frames = [(f.f_code.co_filename, line) for f, line in walk_tb(error.__traceback__)]
    return _describe(frames[::-1])


def _describe(places: Iterable[tuple[str, int]]) -> str:
    """The innermost place outside of torch, and in the project."""
    found = [
        (name, f'{name.rpartition("site-packages/")[2].removeprefix(f"{_ROOT}/")}:{line}')
        for name, line in places
        if not name.startswith((_TORCH, _HERE, '<'))
    ]
    ours = [
        place
        for name, place in found
        if name.startswith(str(_ROOT)) and 'site-packages' not in name
    ]
    innermost = found[0][1] if found else 'the backward pass'
    if not ours or ours[0] == innermost:
        return innermost
    return f'{innermost}, called from {ours[0]}'
