"""What the distiller's options may be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

TERMS = ('s2t', 't2s', 'rec')


def by_stream(
    teachers: Mapping[str, Any], streams: Mapping[str, str]
) -> dict[str, list[str]]:
    """Group the teachers by the stream that they see.

    Args:
        teachers: The teachers' configs by name.
        streams: For teachers that see a stream of another name, that name.

    Returns:
        For each stream, its teachers.

    Raises:
        ValueError: If there is no such teacher.
    """
    unknown = set(streams) - set(teachers)
    if unknown:
        raise ValueError(
            f'streams={dict(streams)}: there is no teacher {sorted(unknown)}; '
            f'the teachers are {sorted(teachers)}.'
        )
    taught: dict[str, list[str]] = {}
    for name in teachers:
        taught.setdefault(streams.get(name, name), []).append(name)
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
