"""What the distiller's options may be."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

TERMS = ('s2t', 't2s', 'rec')


def streams_of(
    teachers: Iterable[str],
    streams: Mapping[str, str | Sequence[str]] | None = None,
) -> dict[str, tuple[str, ...]]:
    """Which streams each teacher sees.

    Args:
        teachers: Names of the teachers.
        streams: For teachers that see a stream of another name, that name,
            or several. Defaults to None, each has the stream of its name.

    Raises:
        ValueError: If there is no such teacher, or one sees no stream.
    """
    seen: dict[str, tuple[str, ...]] = {name: (name,) for name in teachers}
    unknown = set(streams or {}) - set(seen)
    if unknown:
        raise ValueError(
            f'streams={streams}: there is no teacher {sorted(unknown)}; the '
            f'teachers are {sorted(seen)}.'
        )
    for name, wanted in (streams or {}).items():
        seen[name] = (wanted,) if isinstance(wanted, str) else tuple(wanted)
        if not seen[name]:
            raise ValueError(
                f"streams: teacher '{name}' sees no stream; name one, or "
                'leave the teacher out.'
            )
    return seen


def by_stream(
    streams: Mapping[str, Sequence[str]],
) -> dict[str, list[str]]:
    """Group the teachers by the streams that they see.

    Args:
        streams: What :func:`streams_of` gave.

    Returns:
        For each stream, its teachers.
    """
    taught: dict[str, list[str]] = {}
    for name, seen in streams.items():
        for stream in seen:
            taught.setdefault(stream, []).append(name)
    return taught


def check_options(
    terms: Mapping[str, float], teachers: Mapping[str, Any]
) -> None:
    """Refuse what cannot be distilled.

    Args:
        terms: Weights of the loss terms.
        teachers: The teachers' configs by name.

    Raises:
        ValueError: If there is no teacher, or the terms do not go together.
    """
    if not teachers:
        raise ValueError('`teachers` is empty: name at least one teacher.')
    unknown = set(terms) - set(TERMS)
    if unknown or not terms:
        raise ValueError(
            f'terms={dict(terms)}: choose from {TERMS}, one at least.'
        )
    if 'rec' in terms and 't2s' not in terms:
        raise ValueError(
            "terms: 'rec' reconstructs teachers from 't2s'; switch on both "
            'or neither.'
        )
