"""What a feature cache was made from, and how that is compared."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...registry import MODELS, TRANSFORMS
from ..sources.image_source import ImageSource
from ..sources.index_cache import atomic_file

_FILE = 'record.json'
_NAMES = 256
# They may change without making another cache.
_FREE = ('id', 'versions', 'views')


def plain(value: Any, where: str) -> Any:
    """Bring a config into a form that JSON keeps and that compares.

    Types become full names, whether given as a class or by a registry's key.

    Args:
        value: A config or a part of one.
        where: What it is, for the message.

    Raises:
        ValueError: If it holds something other than configs hold.
    """
    if isinstance(value, Mapping):
        items = {key: plain(v, f'{where}.{key}') for key, v in value.items()}
        kind = value.get('type')
        if isinstance(kind, str):
            found = TRANSFORMS.get(kind) or MODELS.get(kind)
            items['type'] = kind if found is None else _full_name(found)
        return items
    if isinstance(value, (list, tuple)):
        return [plain(v, f'{where}[{i}]') for i, v in enumerate(value)]
    if isinstance(value, type):
        return _full_name(value)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise ValueError(
        f'{where} is {value!r}, which a feature cache cannot record; write '
        'it as a config of plain values.'
    )


def describe_sources(sources: Sequence[ImageSource]) -> list[dict[str, Any]]:
    """Tell image sources from others, in milliseconds.

    The names of 256 images, evenly spread, stand for all; of a path the
    last two parts count, so that a folder may move.

    Args:
        sources: The sources, in order.
    """
    described = []
    for source in sources:
        step = max(1, -(-len(source) // _NAMES))
        digest = hashlib.sha256()
        for index in range(0, len(source), step):
            ending = source.name(index).split('/')[-2:]
            digest.update('/'.join(ending).encode('utf-8', 'replace') + b'\n')
        described.append(
            dict(
                type=type(source).__name__,
                images=len(source),
                names=digest.hexdigest(),
            )
        )
    return described


def differences(cached: Any, wanted: Any, where: str) -> Iterator[str]:
    """Name what differs, most telling first.

    Args:
        cached: A part of the cache's record.
        wanted: The same part as the run has it.
        where: Name of the part.

    Yields:
        One clause for each difference.
    """
    if isinstance(cached, dict) and isinstance(wanted, dict):
        for key in {**cached, **wanted}:
            yield from differences(
                cached.get(key), wanted.get(key), f'{where}.{key}'
            )
    elif (
        isinstance(cached, list)
        and isinstance(wanted, list)
        and len(cached) == len(wanted)
    ):
        for i, pair in enumerate(zip(cached, wanted, strict=True)):
            yield from differences(*pair, f'{where}[{i}]')
    elif cached != wanted:
        yield f'{where} is {cached!r} in the cache and {wanted!r} here'


def refuse_other(
    folder: Path, cached: Mapping[str, Any], wanted: Mapping[str, Any]
) -> None:
    """Compare parts of a record.

    Args:
        folder: The cache.
        cached: Its record.
        wanted: The parts that must be equal, as the run has them.

    Raises:
        ValueError: If one is not.
    """
    for part, value in wanted.items():
        for difference in differences(cached.get(part), value, part):
            raise ValueError(
                f"The feature cache '{folder}' was made from something else: "
                f'{difference}; change that, or make another cache with '
                'tools/dataset_tools/cache_features.py.'
            )


def write_record(folder: Path, record: Mapping[str, Any]) -> dict[str, Any]:
    """Write the record of a cache, in one step.

    Args:
        folder: The cache.
        record: What it is made from.

    Returns:
        The record with its ``id``, which tells caches apart.
    """
    folder.mkdir(parents=True, exist_ok=True)
    whole = {**record, 'id': _digest(record)}
    with atomic_file(folder / _FILE) as file:
        file.write(json.dumps(whole, indent=1).encode() + b'\n')
    return whole


def read_record(folder: Path) -> dict[str, Any] | None:
    """Read the record of a cache; None if there is no cache yet.

    Args:
        folder: The cache.

    Raises:
        ValueError: If it is altered.
    """
    path = folder / _FILE
    if not path.is_file():
        return None
    try:
        record: dict[str, Any] = json.loads(path.read_bytes())
        whole = record['id'] == _digest(record)
    except (ValueError, KeyError, TypeError):
        whole = False
    if not whole:
        raise ValueError(
            f"'{path}' is altered; delete it and run "
            'tools/dataset_tools/cache_features.py again, which writes it '
            'anew.'
        )
    return record


def _digest(record: Mapping[str, Any]) -> str:
    fixed = {k: v for k, v in record.items() if k not in _FREE}
    text = json.dumps(fixed, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _full_name(kind: type) -> str:
    return f'{kind.__module__}.{kind.__qualname__}'
