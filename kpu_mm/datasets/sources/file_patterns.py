"""Files named by wildcards and brace ranges."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

_BRACES = re.compile(r'\{([^{}]*)\}')
_RANGE = re.compile(r'(\d+)\.\.(\d+)')


def expand_braces(pattern: str) -> Iterator[str]:
    """Expand ``{000..012}`` and ``{train,val}`` as a shell does.

    Args:
        pattern: Text with any number of brace groups, not nested.

    Yields:
        The texts, the leftmost group changing slowest.
    """
    match = _BRACES.search(pattern)
    if match is None:
        yield pattern
        return
    bounds = _RANGE.fullmatch(match[1])
    if bounds is None:
        choices = match[1].split(',')
    else:
        first, last = bounds.groups()
        choices = [
            str(number).zfill(len(first))
            for number in range(int(first), int(last) + 1)
        ]
    for choice in choices:
        yield from expand_braces(
            pattern[: match.start()] + choice + pattern[match.end() :]
        )


def find_files(patterns: str | Sequence[str], what: str) -> list[Path]:
    """List files by paths, wildcards and brace ranges.

    Args:
        patterns: One or several.
        what: The argument's name, for the messages.

    Returns:
        Absolute paths in the order of the patterns, sorted within a
        wildcard.

    Raises:
        ValueError: If a pattern matches nothing.
    """
    patterns = [patterns] if isinstance(patterns, str) else patterns
    found: list[Path] = []
    for pattern in patterns:
        for path in expand_braces(pattern):
            matches = [path] if Path(path).is_file() else glob.glob(path)
            if not matches:
                raise ValueError(
                    f"No file matches '{path}'; correct `{what}` or put the "
                    'files there.'
                )
            found.extend(Path(match).absolute() for match in sorted(matches))
    if not found:
        raise ValueError(f'`{what}` is empty; name at least one file.')
    return found
