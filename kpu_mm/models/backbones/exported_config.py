"""What ``config.json`` of an exported student may say.

Such a folder may come from anybody, so this file is data: it is checked
whole before anything in it is used, here and nowhere else.
"""

from __future__ import annotations

import hashlib
import inspect
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
_HASHED = ('model.safetensors', 'projectors.safetensors')
_NORMS = ('BN', 'BN2d', 'GN', 'IN', 'IN2d')
# given by the folder or its reader, never by config.json
_NOT_OURS = ('self', 'init_cfg', 'frozen', 'with_cp')
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
    """What ``config.json`` of an exported student says.

    ``files`` has the SHA-256 of each file of weights.
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
        raise RuntimeError(
            f"'{folder / 'config.json'}': {error}; {HINT}."
        ) from error
    return content


def check_description(content: Any) -> None:
    """Raise unless this describes a student, and nothing but a student.

    Args:
        content: The content of ``config.json``.

    Raises:
        ValueError: Which key must be what, without a full stop.
    """
    check_value(content, Description, '')
    backbone = content['backbone']
    kind = find_model(backbone.get('type'), SentinelBackbone)
    if not isinstance(backbone.get('type'), str) or kind is None:
        raise ValueError(
            "backbone.type must be 'kpu_mm.KPUBackbone' or "
            f"'kpu_mm.ViTBackbone', but is {backbone.get('type')!r}"
        )
    hints = get_type_hints(kind.__init__)
    known = [k for k in inspect.signature(kind).parameters if k in hints]
    for key, value in backbone.items():
        if key == 'type':
            continue
        if key not in known or key in _NOT_OURS:
            raise ValueError(f'backbone.{key} is no argument of a student')
        check_value(value, hints[key], f'backbone.{key}')
        _check_sizes(value, f'backbone.{key}')
    # any other path would have a foreign folder read
    if backbone.get('sentinel') != 'sentinel':
        raise ValueError(
            "backbone.sentinel must be 'sentinel', a folder beside "
            f'config.json, but is {backbone.get("sentinel")!r}'
        )
    norm = backbone.get('norm_cfg') or dict(type='BN')
    if norm.get('type') not in _NORMS or any(
        isinstance(value, dict | list) for value in norm.values()
    ):
        raise ValueError(
            f'backbone.norm_cfg must have a type out of {_NORMS} and plain '
            f'values, but is {norm!r}'
        )
    for name, teacher in content['teachers'].items():
        _check_teacher(teacher['config'], f'teachers.{name}.config')
        _check_levels(teacher, f'teachers.{name}', len(content['strides']))


def _check_sizes(value: Any, key: str) -> None:
    if isinstance(value, list | dict):
        for item in value.values() if isinstance(value, dict) else value:
            _check_sizes(item, key)
    elif type(value) is int and not 0 <= value <= _LARGEST:
        raise ValueError(f'{key} must be from 0 to {_LARGEST}, but is {value}')


def _check_teacher(config: Any, key: str) -> None:
    """A teacher's config is kept for its user: it must not lead to code.

    Whether the type is registered is seen when the teacher is built.
    """
    kind = config.get('type')
    if not isinstance(kind, str) or not _TEACHER.fullmatch(kind):
        raise ValueError(
            f'{key}.type must be the name of a teacher of kpu_mm, but is '
            f'{kind!r}'
        )
    path = config.get('config')
    if isinstance(path, str) and not _TOOLBOX_CONFIG.fullmatch(path):
        raise ValueError(
            f"{key}.config must be a toolbox's config such as "
            f"'mmdet::dino/....py' or its content, but is {path!r}"
        )
    inner = config.get('teacher')
    if isinstance(inner, dict):
        _check_teacher(inner, f'{key}.teacher')


def _check_levels(teacher: _Teacher, key: str, num_levels: int) -> None:
    pairs, strides = teacher.get('pairs'), teacher.get('strides')
    if pairs is None and strides is None and 'map_channels' not in teacher:
        return
    if pairs is None or not strides or min(strides) < 1:
        raise ValueError(f'{key} must have both pairs and positive strides')
    if not all(
        0 <= m < len(strides) and 0 <= level < num_levels for m, level in pairs
    ):
        raise ValueError(
            f'{key}.pairs must be indices of {len(strides)} teacher maps and '
            f'{num_levels} student levels, but are {pairs}'
        )


def hash_files(folder: Path) -> dict[str, str]:
    """SHA-256 of the files of weights in a folder, the sentinel's apart.

    The sentinel's weights have a checksum of their own; what its config says
    of heads and norms is in no shape of a weight.

    Args:
        folder: The folder.
    """
    return {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest()
        for name in (*_HASHED, 'sentinel/config.json')
        if (folder / name).is_file()
    }


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
    found = hash_files(folder)
    for name in ('model.safetensors', 'sentinel/config.json'):
        if name not in described['files']:
            raise RuntimeError(
                f"'{folder / 'config.json'}': files.{name} is missing and "
                f'must be the SHA-256 of the file; {HINT}.'
            )
    for name, expected in described['files'].items():
        if name not in found:
            raise FileNotFoundError(
                f"'{folder}' has no {name}, which its config.json lists; add "
                'the file.'
            )
        if found[name] != expected:
            raise RuntimeError(
                f"'{folder / name}' is truncated, corrupt or not the file "
                f'that was exported: its checksum differs; {HINT}.'
            )
    path = folder / 'model.safetensors'
    try:
        with safe_open(path, 'pt') as file:
            kept = (file.metadata() or {}).get('kpu_mm')
    except SafetensorError as error:
        raise RuntimeError(
            f"'{path}' is truncated or corrupt ({error}); {HINT}."
        ) from error
    if kept != fingerprint(described):
        raise RuntimeError(
            f"'{folder / 'config.json'}': backbone, or strides and pairs of "
            f"teachers, must be those of '{path.name}', with which they were "
            f'exported; {HINT}.'
        )
