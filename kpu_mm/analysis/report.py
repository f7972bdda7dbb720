"""What an analysis leaves behind: numbers, a table, a picture."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure


def markdown_table(
    columns: Sequence[str], rows: Sequence[Sequence[Any]]
) -> str:
    """Write rows as a markdown table, numbers with four digits.

    Args:
        columns: Names of the columns.
        rows: As many cells each, None for an empty one.
    """
    cells = [list(columns), ['---'] * len(columns)]
    cells += [[_cell(value) for value in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return '\n'.join(
        '| '
        + ' | '.join(c.ljust(w) for c, w in zip(row, widths, strict=True))
        + ' |'
        for row in cells
    )


def _cell(value: Any) -> str:
    if value is None:
        return ''
    return f'{value:.4g}' if isinstance(value, float) else str(value)


def write_report(
    folder: str | Path,
    name: str,
    numbers: Any,
    text: str,
    figure: Figure | None = None,
) -> list[Path]:
    """Write NAME.json, NAME.md and NAME.png.

    Args:
        folder: Where to; made if need be.
        name: Name of the files.
        numbers: What goes into the JSON.
        text: The markdown.
        figure: The picture. Defaults to None, no picture.

    Returns:
        The files.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f'{name}.json', folder / f'{name}.md']
    content = json.dumps(numbers, indent=2, ensure_ascii=False)
    files[0].write_text(content + '\n', encoding='utf-8')
    files[1].write_text(text + '\n', encoding='utf-8')
    if figure is not None:
        files.append(folder / f'{name}.png')
        figure.savefig(files[-1], dpi=150)
    return files
