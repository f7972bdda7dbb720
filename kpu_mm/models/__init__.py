"""Models: backbones, teachers, projectors, losses, balancers, distillers.

A part is imported when one of its names is asked for, so that who takes a
backbone loads neither teachers nor distillers. The registry imports them all.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

PARTS = (
    'backbones',
    'balancers',
    'losses',
    'projectors',
    'teachers',
    'distillers',
)


def __getattr__(name: str) -> Any:
    if name in PARTS:
        return import_module(f'{__name__}.{name}')
    if not name.startswith('_'):
        for part in PARTS:
            module = import_module(f'{__name__}.{part}')
            if name in module.__all__:
                return getattr(module, name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
