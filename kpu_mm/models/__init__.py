"""Models: backbones, teachers, projectors, losses, distillers, heads.

A part is imported when one of its names is asked for, so that who takes a
backbone loads neither teachers nor distillers, and who distils needs no
MMDetection. The registry imports them in the same way.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from kpu_mm.registry import DETECTION_PARTS, MODEL_PARTS


def __getattr__(name: str) -> Any:
    parts = MODEL_PARTS + DETECTION_PARTS
    if name in parts:
        return import_module(f'{__name__}.{name}')
    if not name.startswith('_'):
        for part in parts:
            place = f'{__name__}.{part}'
            found = getattr(import_module(place), name, None)
            # defined there, not imported from another library
            if getattr(found, '__module__', '').startswith(place):
                return found
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
