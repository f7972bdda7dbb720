"""What an analysis leaves behind: numbers, a table and charts.

The charts need no display and leave pyplot's state alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

Series = Mapping[str, Sequence[float] | np.ndarray]


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Write rows as a markdown table, numbers with four digits.

    Args:
        columns: Names of the columns.
        rows: As many cells each, None for an empty one.
    """
    cells = [list(columns), ['---'] * len(columns)]
    cells += [[_cell(value) for value in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return '\n'.join(f'| {" | ".join(map(str.ljust, row, widths))} |' for row in cells)


def _cell(value: Any) -> str:
    if value is None:
        return ''
    return f'{value:.4g}' if isinstance(value, float) else str(value)


def write_report(
    folder: str | Path, name: str, numbers: Any, text: str, figure: Figure | None = None
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


def panels(
    rows: int, columns: int, size: tuple[float, float] = (4.0, 3.0)
) -> tuple[Figure, np.ndarray]:
    """Make a figure with a grid of empty charts.

    Args:
        rows: Rows of charts.
        columns: Columns of charts.
        size: Width and height of one in inches. Defaults to (4.0, 3.0).

    Returns:
        The figure and its axes, (rows, columns).
    """
    # pyplot would keep the figure and look for a display.
    figure = Figure(figsize=(columns * size[0], rows * size[1]), layout='constrained')
    # without squeeze=False a single row or column would lose its dimension
    axes: np.ndarray = figure.subplots(rows, columns, squeeze=False)
    return figure, axes


def bars(axis: Any, groups: Mapping[str, Mapping[str, float]]) -> None:
    """Draw groups of bars with their values, one colour for each series.

    Args:
        axis: Where to draw.
        groups: By group, the value of each series; one may be missing.
    """
    series = list(dict.fromkeys(s for group in groups.values() for s in group))
    width = 0.85 / max(map(len, groups.values()))
    for name in series:
        # The bars that a group has stand around its middle.
        places = {
            x + (list(group).index(name) - (len(group) - 1) / 2) * width: (group[name])
            for x, group in enumerate(groups.values())
            if name in group
        }
        drawn = axis.bar(list(places), list(places.values()), width, label=name)
        axis.bar_label(drawn, fmt='%.3g', fontsize='xx-small')
    axis.set_xticks(range(len(groups)), list(groups), rotation=20)
    if len(series) > 1:
        _legend(axis)


def lines(axis: Any, x: Sequence[float] | np.ndarray, series: Series) -> None:
    """Draw one line for each series, with a mark at each value.

    Args:
        axis: Where to draw.
        x: Common abscissae, (N,).
        series: By name, N values.
    """
    for name, values in series.items():
        axis.plot(x, values, marker='.', label=name)
    _legend(axis)


def areas(axis: Any, x: Sequence[float] | np.ndarray, series: Series) -> None:
    """Draw shares, stacked up to 1.

    Args:
        axis: Where to draw.
        x: Common abscissae, (N,).
        series: By name, N shares.
    """
    axis.stackplot(x, *series.values(), labels=list(series))
    axis.set_ylim(0, 1)
    axis.margins(x=0)
    _legend(axis)


def _legend(axis: Any) -> None:
    # Right of the chart, where it hides nothing.
    axis.legend(fontsize='small', loc='upper left', bbox_to_anchor=(1, 1))


def picture_grid(
    rows: Sequence[Sequence[np.ndarray]], titles: Sequence[str], side: float = 1.6
) -> Figure:
    """Draw pictures in the first one's shape, under their titles.

    Args:
        rows: In each row a picture for each title, (H, W, 3) uint8 or in
            [0, 1].
        titles: Titles of the columns.
        side: Width of a picture in inches. Defaults to 1.6.
    """
    figure, axes = panels(len(rows), len(titles), (side, side))
    for place, row in zip(axes, rows, strict=True):
        # Grids of other models have other shapes, but show the same image.
        shape = row[0].shape[0] / row[0].shape[1]
        for axis, picture in zip(place, row, strict=True):
            axis.imshow(picture, interpolation='nearest', aspect='auto')
            axis.set_box_aspect(shape)
            axis.set_axis_off()
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title, fontsize='small')
    return figure
