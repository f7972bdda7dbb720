"""Say in one sentence which key of a config is wrong."""

from __future__ import annotations

import difflib
import inspect
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import CodeType, FrameType
from typing import Any, get_type_hints

from mmengine.config import Config

from .command_line import refuse
from .value_check import check_value

# An iteration of a loop, and a batch of a loader, ours and torch's.
_STEPS = {'run_iter', '_next', '__next__'}
# Arguments of build and register functions, MMEngine's and ours, that are the
# config of what they build.
_ARGUMENTS = (
    'cfg',
    'config',
    'custom_hooks',
    'dataloader',
    'env_cfg',
    'evaluator',
    'hook',
    'log_processor',
    'loop',
    'model',
    'optim_wrapper',
    'scheduler',
    'visualizer',
)
_LONGEST = 500  # characters of an error; libraries print whole configs


@contextmanager
def explaining(cfg: Config, name: str) -> Iterator[None]:
    """End the program with a sentence if the config is wrong.

    What is raised while the run is set up is the config's fault. A checkpoint
    that cannot be written is a sentence too. What else is raised by a
    training step or by a loader is a bug and keeps its
    traceback, and so does all with KPU_MM_TRACEBACK=1 in the environment.

    Args:
        cfg: The config.
        name: Its file, for the sentence.

    Raises:
        SystemExit: With code 2, if the config is wrong.
    """
    try:
        yield
    except Exception as error:
        frames = list(_frames(error))
        names = {frame.f_code.co_name for frame in frames}
        if os.environ.get('KPU_MM_TRACEBACK') == '1':
            raise
        # a sentence of ours about the file system, such as a full disk
        if isinstance(error.__cause__, OSError):
            refuse(str(error))
        if names & _STEPS:
            raise
        keys, builder = _find_place(frames, cfg)
        place = '.'.join(keys)
        text = _describe(error, frames, builder)
        refuse(f'{name}: {place}: {text}' if place else f'{name}: {text}')


def _frames(error: BaseException | None) -> Iterator[FrameType]:
    """The frames of an error and of its causes, from the outermost in."""
    while error is not None:
        traceback = error.__traceback__
        while traceback is not None:
            yield traceback.tb_frame
            traceback = traceback.tb_next
        error = error.__cause__


def _find_place(
    frames: Sequence[FrameType], cfg: Config
) -> tuple[list[str], FrameType | None]:
    """Follow the calls into the config.

    Args:
        frames: From the outermost in.
        cfg: The config.

    Returns:
        Keys of the innermost part that was an argument of a call, and the
        innermost frame of MMEngine that built a part of the config.
    """
    keys: list[str] = []
    builder = None
    for frame in frames:
        code, values = frame.f_code, frame.f_locals
        if is_builder := code.co_name == 'build_from_cfg':
            builder = frame
        count = code.co_argcount + code.co_kwonlyargcount
        for name in code.co_varnames[:count] if _builds(code) else ('config',):
            if name not in _ARGUMENTS:
                continue
            value, wanted = values.get(name), values.get('name')
            if found := _find(_at(cfg, keys), value, wanted, is_builder):
                keys += found
            # a loop builds the loader that stands outside of its own config
            elif found := _find(cfg, value, wanted, False):
                keys = found
    return keys, builder


def _builds(code: CodeType) -> bool:
    return code.co_name.lstrip('_').startswith(('build', 'register', 'setup'))


def _at(cfg: Any, keys: Sequence[str]) -> Any:
    for key in keys:
        cfg = cfg[int(key) if isinstance(cfg, list | tuple) else key]
    return cfg


def _find(
    place: Any, value: Any, name: Any, by_type: bool
) -> list[str] | None:
    """Keys below a place of the part that is the value.

    Args:
        place: A part of the config.
        value: What to find.
        name: The key of the part, if several are equal.
        by_type: Whether to take a part of the same type where none is equal:
            owners complete the config of a part before they build it.
    """
    if not isinstance(value, Mapping | list) or not value:
        return None
    parts = list(_walk(place, []))
    equal = [steps for steps, part in parts if part == value]
    if equal:
        return next((s for s in equal if s[-1] == name), equal[0])
    if by_type and isinstance(value, Mapping):
        likeness, steps = max(
            ((_likeness(part, value), steps) for steps, part in parts),
            key=lambda pair: pair[0],
            default=(0, None),
        )
        return steps if likeness else None
    return None


def _walk(place: Any, keys: list[str]) -> Iterator[tuple[list[str], Any]]:
    items: Any = ()
    if isinstance(place, Mapping | Config):
        items = place.items()
    elif isinstance(place, list | tuple):
        items = enumerate(place)
    for key, value in items:
        steps = [*keys, str(key)]
        if isinstance(value, Mapping | list | tuple):
            yield steps, value
            yield from _walk(value, steps)


def _likeness(part: Any, value: Mapping[str, Any]) -> int:
    """How many entries are equal; 0 for parts of different types."""
    if not isinstance(part, Mapping) or 'type' not in part:
        return 0
    if _name(part['type']) != _name(value.get('type')):
        return 0
    return 1 + sum(value.get(key) == entry for key, entry in part.items())


def _name(kind: Any) -> str:
    name = kind if isinstance(kind, str) else getattr(kind, '__name__', '')
    return str(name).rpartition('.')[2]


def _describe(
    error: Exception, frames: Sequence[FrameType], builder: FrameType | None
) -> str:
    """The error as a sentence."""
    text = ' '.join(str(error).split())
    if frames[-1].f_code.co_name == 'build_norm_layer':
        # mmcv names neither the key nor the type
        return f'there is no norm layer {frames[-1].f_locals["cfg"]!r}'
    if builder is not None:
        cls = builder.f_locals.get('obj_cls')
        given = builder.f_locals.get('args', {})
        if cls is None and frames[-1] is builder:
            return _describe_type(builder)
        if isinstance(cls, type) and not isinstance(error, OSError):
            try:
                _check_arguments(cls, given)
            except ValueError as wrong:
                return f'{wrong}.'
    if isinstance(error, KeyError):
        key = str(error.args[0]) if error.args else ''
        return key if ' ' in key else f'the key {key!r} is missing or unknown'
    if match := re.search(r"ConfigDict' object has no attribute '(\w+)", text):
        return f"the key '{match[1]}' is missing"
    if len(text) > _LONGEST:
        text = f'{text[:_LONGEST]}...'
    if isinstance(error, OSError | RuntimeError | ValueError) and text:
        return text
    return f'{type(error).__name__}: {text}'


def _check_arguments(cls: Any, given: Mapping[str, Any]) -> None:
    """Raise if a constructor does not take the arguments, or lacks one."""
    name = cls.__name__
    parameters = inspect.signature(cls).parameters
    kinds = {p.kind for p in parameters.values()}
    for key in given:
        if key in parameters or inspect.Parameter.VAR_KEYWORD in kinds:
            continue
        close = difflib.get_close_matches(key, parameters, 3, 0.5)
        raise ValueError(
            f'{name} takes no argument {key!r}; it takes '
            f'{" or ".join(map(repr, close or parameters)) or "none"}'
        )
    for key, p in parameters.items():
        many = p.kind in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
        if p.default is p.empty and not many and key not in given:
            raise ValueError(f'{name} needs the key {key!r}, which is missing')
    try:
        hints = get_type_hints(cls.__init__)
    except (NameError, TypeError):  # hints of other libraries may not resolve
        return
    for key in given:
        check_value(given[key], hints.get(key, Any), key)


def _describe_type(builder: FrameType) -> str:
    """Which type is unknown, or that there is none."""
    part = builder.f_locals['cfg']
    if not isinstance(part, Mapping):
        return f'{part!r} must be a config with a type'
    kind = builder.f_locals.get('obj_type')
    if kind is None:
        return "the key 'type' is missing"
    registry = builder.f_locals['registry']
    known = sorted(registry.module_dict)
    if registry.scope != 'kpu_mm':
        from kpu_mm import registry as ours

        own = [
            r
            for r in vars(ours).values()
            if getattr(r, 'scope', '') == 'kpu_mm' and r.name == registry.name
        ]
        known += [f'kpu_mm.{k}' for r in own for k in r.module_dict]
    close = difflib.get_close_matches(str(kind), known, 3, 0.5)
    hint = f'did you mean one of {close}?' if close else 'check its name.'
    return f'there is no {registry.name} of type {kind!r}; {hint}'
