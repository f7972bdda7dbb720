"""The check of ``config.json`` in the folder of an exported student.

Such a folder may come from anybody, so this file is data: it is checked
whole before anything in it is used, here and nowhere else.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict, get_type_hints

from safetensors import SafetensorError, safe_open
from typing_extensions import NotRequired

from kpu_mm.registry import find_model
from kpu_mm.utils.value_check import check_value
from kpu_mm.weights.pretrained import read_config

from .sentinel_backbone import SentinelBackbone

# no size of a model is larger; a larger one would only fill the memory
_LARGEST = 1 << 16
# built without importing anything
_NORMS = ('BN', 'BN2d', 'GN', 'IN', 'IN2d')
# given by the folder or its reader, never by config.json
_NOT_OURS = ('return', 'init_cfg', 'frozen', 'norm_eval', 'with_cp')
# names only: a dotted path would be imported
_TEACHER = re.compile(r'(kpu_mm\.)?[A-Za-z_]\w*')
_TOOLBOX_CONFIG = re.compile(r'mm\w+::[\w-]+(/[\w-][\w.-]*)*')
HINT = 'export the student again, or copy the folder again'


class _Sentinel(TypedDict):
    name: str
    sha256: str


class _Input(TypedDict):
    channels: str
    range: list[float]
    mean: list[float]
    std: list[float]
    min_size: int


class _Teacher(TypedDict):
    config: dict[str, Any]
    summary_channels: NotRequired[int | None]
    map_channels: NotRequired[list[int]]
    strides: NotRequired[list[int]]
    pairs: NotRequired[list[tuple[int, int]]]


class Description(TypedDict):
    """The content of ``config.json`` of an exported student.

    ``files`` has the SHA-256 of each file of weights. What transformers needs
    besides is absent from earlier exports.
    """

    kpu_mm_version: str
    torch_version: str
    backbone: dict[str, Any]
    sentinel: _Sentinel
    input: _Input
    strides: list[int]
    channels: int
    teachers: dict[str, _Teacher]
    files: dict[str, str]
    graphs: NotRequired[dict[str, Any]]
    model_type: NotRequired[str]
    architectures: NotRequired[list[str]]
    sentinel_config: NotRequired[dict[str, Any]]


def read_description(folder: Path) -> Description:
    """Read and check ``config.json`` of an exported student.

    Args:
        folder: The folder that ``tools/export.py`` wrote.

    Returns:
        The content.

    Raises:
        FileNotFoundError: If the file is missing.
        RuntimeError: If a key is missing or wrong.
    """
    content: Any = read_config(folder)
    if 'backbone' not in content:
        raise RuntimeError(
            f"'{folder}' is not an exported student: its config.json has no "
            "'backbone'; pass the folder that tools/export.py wrote."
        )
    try:
        check_description(content)
    except (RecursionError, ValueError) as error:
        raise RuntimeError(f"'{folder / 'config.json'}': {error}; {HINT}.") from error
    return content


def check_description(content: Any) -> None:
    """Raise unless this describes a student, and nothing but a student.

    Args:
        content: The content of ``config.json``.

    Raises:
        ValueError: Which key must be what, without a full stop.
    """
    check_value(content, Description, '')
    check_backbone(content['backbone'])
    for name, teacher in content['teachers'].items():
        _check_teacher(teacher['config'], f'teachers.{name}.config')
        _check_levels(teacher, f'teachers.{name}', len(content['strides']))


def check_backbone(backbone: Mapping[str, Any]) -> None:
    """Raise unless these are the arguments of a student, and no others.

    Args:
        backbone: What ``config.json`` has by this name.

    Raises:
        ValueError: Which key must be what, without a full stop.
    """
    named = backbone.get('type')
    kind: Any = find_model(named, SentinelBackbone)
    _require(
        isinstance(named, str) and kind is not None,
        'backbone.type',
        "'kpu_mm.KPUBackbone' or 'kpu_mm.ViTBackbone'",
        named,
    )
    hints = dict(type=str, **get_type_hints(kind.__init__))
    for key, value in backbone.items():
        if key not in hints or key in _NOT_OURS:
            raise ValueError(f'backbone.{key} is no argument of a student')
        check_value(value, hints[key], f'backbone.{key}')
        _check_sizes(value, f'backbone.{key}')
    # any other path would have a foreign folder read
    place, what = backbone.get('sentinel'), "'sentinel', the folder beside"
    _require(place == 'sentinel', 'backbone.sentinel', what, place)
    norm = backbone.get('norm_cfg') or dict(type='BN')
    plain = not any(isinstance(v, dict | list) for v in norm.values())
    what = f'a dict with a type out of {_NORMS} and plain values'
    known = plain and norm.get('type') in _NORMS
    _require(known, 'backbone.norm_cfg', what, norm)


def _require(holds: bool, key: str, what: str, value: Any) -> None:
    if not holds:
        raise ValueError(f'{key} must be {what}, but is {value!r}')


def _check_sizes(value: Any, key: str) -> None:
    if isinstance(value, list | dict):
        for item in value.values() if isinstance(value, dict) else value:
            _check_sizes(item, key)
    elif type(value) is int:
        what = f'from 0 to {_LARGEST}'
        _require(0 <= value <= _LARGEST, key, what, value)


def _check_teacher(config: Any, key: str) -> None:
    """A teacher's config is kept for its user: it must not lead to code.

    Whether the type is registered is checked when the teacher is built.
    """
    kind, path = config.get('type'), config.get('config')
    plain = isinstance(kind, str) and _TEACHER.fullmatch(kind) is not None
    _require(plain, f'{key}.type', 'the name of a teacher of kpu_mm', kind)
    # any other file would be run
    if path is not None:
        match = isinstance(path, str) and _TOOLBOX_CONFIG.fullmatch(path)
        what = "the name of a toolbox's config, 'mmdet::....py'"
        _require(bool(match), f'{key}.config', what, path)
    inner = config.get('teacher')
    if isinstance(inner, dict):
        _check_teacher(inner, f'{key}.teacher')


def _check_levels(teacher: _Teacher, key: str, num_levels: int) -> None:
    pairs, strides = teacher.get('pairs'), teacher.get('strides')
    if pairs is None and strides is None and 'map_channels' not in teacher:
        return
    if pairs is None or not strides or min(strides) < 1:
        raise ValueError(f'{key} must have both pairs and positive strides')
    maps, levels = range(len(strides)), range(num_levels)
    what = f'indices of {len(maps)} teacher maps and {num_levels} levels'
    known = all(m in maps and level in levels for m, level in pairs)
    _require(known, f'{key}.pairs', what, pairs)
    # Each map needs a pair to come from, each pair an MLP of the projector.
    mlps = len(teacher.get('map_channels', pairs))
    whole = {m for m, _ in pairs} == set(maps) and len(pairs) == mlps
    _require(whole, f'{key}.pairs', f'{mlps} pairs, one at least for each teacher map', pairs)


def hash_files(folder: Path) -> dict[str, str]:
    """SHA-256 of the files of weights in a folder, the sentinel's apart.

    Args:
        folder: The folder.
    """
    # The sentinel's weights have a checksum of their own. Its config has one
    # here: heads and norms could be changed without changing a shape.
    names = ('model.safetensors', 'projectors.safetensors')
    return {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest()
        for name in (*names, 'sentinel/config.json')
        if (folder / name).is_file()
    }


def sentinel_config(folder: Path) -> dict[str, Any]:
    """What a sentinel of random weights is built from.

    Args:
        folder: The folder of the student.
    """
    # the precision is that of the whole model
    left_out = ('_name_or_path', 'architectures', 'dtype', 'torch_dtype', 'transformers_version')
    content = read_config(folder / 'sentinel')
    return {key: value for key, value in content.items() if key not in left_out}


def fingerprint(content: Mapping[str, Any]) -> str:
    """What the features depend on, as it is kept with the weights too.

    Args:
        content: The content of ``config.json``.
    """
    levels = {
        name: [teacher.get(key) for key in ('strides', 'pairs')]
        for name, teacher in content['teachers'].items()
    }
    return json.dumps([content['backbone'], levels], sort_keys=True)


def check_files(folder: Path, described: Description) -> None:
    """Raise unless all files are those that were exported.

    Args:
        folder: The folder.
        described: The content of its ``config.json``.

    Raises:
        FileNotFoundError: If a file is missing.
        RuntimeError: If a file or the description is another one.
    """
    found, listed = hash_files(folder), described['files']
    for name in ('model.safetensors', 'sentinel/config.json', *listed):
        if name not in listed:
            raise RuntimeError(
                f"'{folder / 'config.json'}': files.{name} is missing and "
                f'must be the SHA-256 of the file; {HINT}.'
            )
        if name not in found:
            raise FileNotFoundError(
                f"'{folder}' has no {name}, which its config.json lists; add the file."
            )
        if found[name] != listed[name]:
            raise RuntimeError(
                f"'{folder / name}' is truncated, corrupt or not the file "
                f'that was exported: its checksum differs from that in config.json; {HINT}.'
            )
    if described.get('sentinel_config', own := sentinel_config(folder)) != own:
        raise RuntimeError(
            f"'{folder / 'config.json'}': sentinel_config must be what is in "
            f"'{folder / 'sentinel' / 'config.json'}'; {HINT}."
        )
    path = folder / 'model.safetensors'
    try:
        with safe_open(path, 'pt') as file:
            kept = (file.metadata() or {}).get('kpu_mm')
    except SafetensorError as error:
        raise RuntimeError(f"'{path}' is truncated or corrupt ({error}); {HINT}.") from error
    # Someone may have changed config.json and its list of checksums.
    if kept != fingerprint(described):
        raise RuntimeError(
            f"'{folder / 'config.json'}': backbone, or strides and pairs of "
            f"teachers, must be those of '{path.name}', with which they were "
            f'exported; {HINT}.'
        )
