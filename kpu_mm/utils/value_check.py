"""Compare values out of JSON or a config with type hints."""

from __future__ import annotations

import math
import types
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any, Union, get_args, get_origin, get_type_hints

from typing_extensions import NotRequired, is_typeddict

_NAMES = {
    bool: 'true or false',
    int: 'an integer',
    float: 'a finite number',
    str: 'a text',
    dict: 'an object',
    type(None): 'null',
}
_LISTS = (list, Sequence, tuple)
_DICTS = (dict, Mapping)
_UNIONS = (Union, types.UnionType)  # Union[X, Y] and X | Y


def check_value(value: Any, hint: Any, key: str) -> None:
    """Raise unless a value has the type of a hint.

    Args:
        value: What JSON or a config can hold.
        hint: A type hint: bool, int, float, str, Any, a union, a list,
            sequence, tuple or dict of these, or a TypedDict. Any value has
            the type of another hint.
        key: Where the value stands, for the message; '' at the top.

    Raises:
        ValueError: Which key must be what, without a full stop.
    """
    origin, inner = get_origin(hint), get_args(hint)
    if is_typeddict(hint):
        _check_keys(value, hint, key)
    elif origin in _LISTS and isinstance(value, list | tuple):
        # tuple[X, Y] has a hint for each item, tuple[X, ...] one for all.
        pair = origin is tuple and Ellipsis not in inner
        if pair and len(value) != len(inner):
            raise ValueError(f'{key} must be a list of {len(inner)}, but is {value!r}')
        for i, item in enumerate(value):
            check_value(item, inner[i if pair else 0], f'{key}[{i}]')
    elif origin in _DICTS and isinstance(value, dict):
        for name, item in value.items():
            check_value(item, inner[1], f'{key}.{name}')
    elif not _is_a(value, hint):
        raise ValueError(f'{key} must be {_describe(hint)}, but is {value!r}')


def _check_keys(value: Any, hint: Any, key: str) -> None:
    """Raise unless a value is what a TypedDict describes."""
    if not isinstance(value, dict):
        raise ValueError(f'{key} must be an object, but is {value!r}')
    # include_extras, or NotRequired would be lost
    hints = get_type_hints(hint, include_extras=True)
    for name, inner in hints.items():
        place = f'{key}.{name}'.removeprefix('.')
        optional = get_origin(inner) is NotRequired
        if name in value:
            (inner,) = get_args(inner) if optional else (inner,)
            check_value(value[name], inner, place)
        elif not optional:
            raise ValueError(f'{place} is missing and must be {_describe(inner)}')
    if unknown := sorted(set(value) - set(hints)):
        place = f'{key}.{unknown[0]}'.removeprefix('.')
        raise ValueError(f'{place} is not known; known are {sorted(hints)}')


def _is_a(value: Any, hint: Any) -> bool:
    """Whether a value has a type, for types without keys."""
    if get_origin(hint) in _UNIONS:
        return any(_matches(value, choice) for choice in get_args(hint))
    if hint is float:
        # bool is a subclass of int; NaN would spread through the model
        number = isinstance(value, int | float) and type(value) is not bool
        return number and math.isfinite(value)
    if hint is int:
        return type(value) is int
    if get_origin(hint) in _LISTS + _DICTS:
        return False
    if hint in _NAMES:
        return isinstance(value, hint)
    # Other classes are not compared, but a text is no module or tensor.
    is_class = isinstance(hint, type) and hint not in (Any, object)
    is_path = is_class and issubclass(hint, PurePath)
    return not (isinstance(value, str) and is_class) or is_path


def _matches(value: Any, hint: Any) -> bool:
    try:
        check_value(value, hint, '')
    except ValueError:
        return False
    return True


def _describe(hint: Any) -> str:
    if get_origin(hint) in _UNIONS:
        return ' or '.join(_describe(choice) for choice in get_args(hint))
    if get_origin(hint) in _LISTS:
        return 'a list'
    if is_typeddict(hint) or get_origin(hint) in _DICTS:
        return 'an object'
    return _NAMES.get(hint, str(hint))
