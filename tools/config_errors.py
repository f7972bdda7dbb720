"""Say in one sentence which key of a config is wrong."""

from __future__ import annotations

import difflib
import inspect
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from traceback import walk_tb
from types import CodeType, FrameType
from typing import Any, get_type_hints

from mmengine.config import Config
from mmengine.hooks import CheckpointHook
from mmengine.registry import HOOKS, PARAM_SCHEDULERS, DefaultScope

from kpu_mm.utils.command_line import refuse
from kpu_mm.utils.value_check import check_value

# An iteration of a loop, and a batch of a loader, ours and torch's.
_STEPS = {'run_iter', '_next', '__next__'}
# Arguments of build and register functions, MMEngine's and ours, that are the
# config of what they build.
_ARGUMENTS = (
    *('cfg', 'config', 'custom_hooks', 'dataloader', 'env_cfg', 'evaluator'),
    *('hook', 'log_processor', 'loop', 'model', 'optim_wrapper', 'scheduler'),
    'visualizer',
)
_LONGEST = 500  # characters of an error
# Parts whose arguments show their faults only while training.
_LATE = {'default_hooks': HOOKS, 'custom_hooks': HOOKS, 'param_scheduler': PARAM_SCHEDULERS}
_HINTED = ('mmengine', 'kpu_mm')


@contextmanager
def explaining(cfg: Config, name: str) -> Iterator[None]:
    """End the program with a sentence if the config is wrong.

    What is raised while the run is set up is the config's fault. A checkpoint
    that cannot be written is a sentence too, and so are a loss that is not
    finite, images that are too small for the model, and a DataError, whatever
    raises it. What else is raised by a
    training step or by a loader is a bug and keeps its traceback, and so does
    everything with KPU_MM_TRACEBACK=1 in the environment.

    Args:
        cfg: The config.
        name: Its file, for the sentence.

    Raises:
        SystemExit: With code 2, if the config is wrong.
    """
    _check_late_arguments(cfg, name)
    try:
        yield
    except Exception as error:
        if os.environ.get('KPU_MM_TRACEBACK') == '1':
            raise
        # sentences of ours: about the file system, such as a full disk, and
        # of NonFiniteHook
        if isinstance(error.__cause__, OSError) or isinstance(error, FloatingPointError):
            refuse(str(error))
        if sentence := _data_error(error):
            refuse(sentence)
        frames = list(_frames(error))
        if sentence := _size_error(error, frames):
            refuse(sentence)
        if _STEPS & {frame.f_code.co_name for frame in frames}:
            raise
        keys, builder = _find_place(frames, cfg)
        text = _describe(error, frames, builder)
        refuse(': '.join(filter(None, (name, '.'.join(keys), text))))


def _check_late_arguments(cfg: Config, name: str) -> None:
    """Check hooks and schedulers, whose arguments are first used while training."""
    for key, registry in _LATE.items():
        for keys, part in _walk({key: cfg.get(key)}, []):
            kind = part.get('type') if isinstance(part, Mapping) else None
            with DefaultScope.overwrite_default_scope(cfg.get('default_scope')):
                cls = registry.get(kind) if isinstance(kind, str) else kind
            # What is unknown is said when it is built; type hints of others are less reliable.
            if not isinstance(cls, type) or cls.__module__.split('.')[0] not in _HINTED:
                continue
            hints: dict[str, Any] = {}
            for base in reversed(cls.__mro__):
                if '__init__' in vars(base) and base is not object:
                    hints |= get_type_hints(vars(base)['__init__'])
            try:
                for argument, value in part.items():
                    # 1e5 is a usual way to write a number of iterations
                    whole = isinstance(value, float) and value.is_integer()
                    check_value(int(value) if whole else value, hints.get(argument, Any), argument)
                # It hands what it does not know to the runner, which takes no more.
                same = cls is CheckpointHook or '__init__' not in vars(cls)
                if issubclass(cls, CheckpointHook) and same:
                    own = {'type', 'priority', '_scope_'}
                    given = {k: v for k, v in part.items() if k not in own}
                    _check_arguments(cls, given, strict=True)
            except ValueError as wrong:
                refuse(f'{name}: {".".join(keys)}: {wrong}.')


def _data_error(error: BaseException | None) -> str:
    """The sentence of a DataError among an error and its causes; '' for none."""
    # Imported late: it imports torch.
    from kpu_mm.datasets import DataError

    while error is not None and not isinstance(error, DataError):
        error = error.__cause__
    # From a worker, torch sends the whole traceback, which ends with the error.
    return str(error or '').rpartition('DataError: ')[2].strip()


def _size_error(error: Exception, frames: Sequence[FrameType]) -> str:
    """The sentence of an ImageSizeError with the files of the batch; '' for another error."""
    from kpu_mm.models.encoder import ImageSizeError

    if not isinstance(error, ImageSizeError):
        return ''
    batch = next((f.f_locals['data_batch'] for f in frames if 'data_batch' in f.f_locals), None)
    paths = ', '.join(f"'{path}'" for path in _paths(batch))
    # Streams without labels know no paths; they skip such images.
    return f'{error} The batch has {paths}; replace what is too small.' if paths else f'{error}'


def _paths(batch: Any) -> Iterator[str]:
    """The images of a batch, or of one for each task."""
    if isinstance(batch, Mapping | list | tuple):
        for part in batch.values() if isinstance(batch, Mapping) else batch:
            yield from _paths(part)
    elif path := getattr(batch, 'img_path', None):
        yield path


def _frames(error: BaseException | None) -> Iterator[FrameType]:
    """The frames of an error and of its causes, from the outermost in."""
    while error is not None:
        yield from (frame for frame, _ in walk_tb(error.__traceback__))
        error = error.__cause__


def _find_place(frames: Sequence[FrameType], cfg: Config) -> tuple[list[str], FrameType | None]:
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
        for name in _parameters(code):
            value, wanted = values.get(name), values.get('name')
            if found := _find(_at(cfg, keys), value, wanted, is_builder):
                keys += found
            # A loop builds the loader that stands outside of its own config.
            elif found := _find(cfg, value, wanted, False):
                keys = found
    return keys, builder


def _parameters(code: CodeType) -> list[str]:
    """The parameters of a call that may hold a part of the config."""
    names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    if not re.match('_*(build|register|setup)', code.co_name):
        return ['config']
    return [name for name in names if name in _ARGUMENTS]


def _at(cfg: Any, keys: Sequence[str]) -> Any:
    for key in keys:
        cfg = cfg[int(key) if isinstance(cfg, list | tuple) else key]
    return cfg


def _find(place: Any, value: Any, name: Any, by_type: bool) -> list[str] | None:
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
    equal = [keys for keys, part in parts if part == value]
    if equal:
        return next((keys for keys in equal if keys[-1] == name), equal[0])
    if not by_type or not isinstance(value, Mapping):
        return None
    alike = [(_likeness(part, value), keys) for keys, part in parts]
    likeness, keys = max(alike, key=lambda pair: pair[0], default=(0, []))
    return keys if likeness else None


def _walk(place: Any, keys: list[str]) -> Iterator[tuple[list[str], Any]]:
    """Each part below a place that has parts itself, with its keys."""
    items: Any = ()
    if isinstance(place, Mapping | Config):
        items = place.items()
    elif isinstance(place, list | tuple):
        items = enumerate(place)
    for key, value in items:
        if isinstance(value, Mapping | list | tuple):
            yield [*keys, str(key)], value
            yield from _walk(value, [*keys, str(key)])


def _likeness(part: Any, value: Mapping[str, Any]) -> int:
    """How many entries are equal; 0 for parts of different types."""
    if not isinstance(part, Mapping) or 'type' not in part:
        return 0
    # 'kpu_mm.X', 'X' and the class X are one type.
    ours, theirs = (
        getattr(kind, '__name__', str(kind)).rpartition('.')[2]
        for kind in (part['type'], value.get('type'))
    )
    if ours != theirs:
        return 0
    return 1 + sum(value.get(key) == entry for key, entry in part.items())


def _describe(error: Exception, frames: Sequence[FrameType], builder: FrameType | None) -> str:
    """The error as a sentence."""
    text = ' '.join(str(error).split())
    if frames[-1].f_code.co_name == 'build_norm_layer':
        # mmcv names neither the key nor the type.
        return f'there is no norm layer {frames[-1].f_locals["cfg"]!r}'
    # a dataset of MMEngine with an empty list
    if frames[-1].f_code.co_name == '_serialize_data':
        return 'there are no images; correct data_root, data_prefix, img_suffix or ann_file.'
    if builder is not None:
        cls = builder.f_locals.get('obj_cls')
        # MMEngine has not found the class itself.
        if cls is None and frames[-1] is builder:
            return _describe_type(builder)
        if isinstance(cls, type) and not isinstance(error, OSError):
            try:
                _check_arguments(cls, builder.f_locals.get('args', {}))
            except ValueError as wrong:
                return f'{wrong}.'
    # Some raise a sentence as a KeyError, others the key alone.
    if isinstance(error, KeyError):
        key = str(error.args[0]) if error.args else ''
        return key if ' ' in key else f'the key {key!r} is missing or unknown'
    if match := re.search(r"ConfigDict' object has no attribute '(\w+)", text):
        return f"the key '{match[1]}' is missing"
    # Libraries print whole configs.
    if len(text) > _LONGEST:
        text = f'{text[:_LONGEST]}...'
    if isinstance(error, OSError | RuntimeError | ValueError) and text:
        return text
    return f'{type(error).__name__}: {text}'


def _check_arguments(cls: Any, given: Mapping[str, Any], strict: bool = False) -> None:
    """Raise if a constructor does not take the arguments, or lacks one.

    Args:
        cls: Its class.
        given: The arguments.
        strict: Whether to refuse what ``**kwargs`` would take. Defaults to
            False.
    """
    signature = inspect.signature(cls)
    if strict:
        named = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
        signature = signature.replace(parameters=named)
    parameters = signature.parameters
    try:
        # First without those that are missing: a key with a typing error is
        # both unknown and missing.
        signature.bind_partial(**given)
        signature.bind(**given)
    except TypeError as error:
        key = str(error).split("'")[1]
        if key in parameters:
            raise ValueError(f'{cls.__name__} needs the key {key!r}, which is missing') from None
        close = difflib.get_close_matches(key, parameters, 3, 0.5)
        raise ValueError(
            f'{cls.__name__} takes no argument {key!r}; it takes '
            f'{" or ".join(map(repr, close or parameters)) or "none"}'
        ) from None
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
        # Imported late: registries import the libraries.
        from kpu_mm import registry as ours

        for own in vars(ours).values():
            name = getattr(own, 'name', None)
            if name == registry.name and own.scope == 'kpu_mm':
                known += [f'kpu_mm.{k}' for k in own.module_dict]
    close = difflib.get_close_matches(str(kind), known, 3, 0.5)
    hint = f'did you mean one of {close}?' if close else 'check its name.'
    return f'there is no {registry.name} of type {kind!r}; {hint}'
