"""Charts of measurements, without a display and without pyplot's state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

Series = Mapping[str, Sequence[float] | np.ndarray]


def panels(
    rows: int, columns: int, size: tuple[float, float] = (4.0, 3.0)
) -> tuple[Figure, np.ndarray]:
    """A figure with a grid of empty charts.

    Args:
        rows: Rows of charts.
        columns: Columns of charts.
        size: Width and height of one in inches. Defaults to (4.0, 3.0).

    Returns:
        The figure and its axes, (rows, columns).
    """
    figure = Figure(
        figsize=(columns * size[0], rows * size[1]), layout='constrained'
    )
    axes: np.ndarray = figure.subplots(rows, columns, squeeze=False)
    return figure, axes


def bars(axis: Any, groups: Mapping[str, Mapping[str, float]]) -> None:
    """Groups of bars with their values, one colour for each series.

    Args:
        axis: Where to draw.
        groups: By group, the value of each series; one may be missing.
    """
    series = list(dict.fromkeys(s for group in groups.values() for s in group))
    width = 0.85 / max(map(len, groups.values()))
    for name in series:
        places, values = [], []
        for x, group in enumerate(groups.values()):
            if name in group:
                # those that are there stand around the middle
                offset = list(group).index(name) - (len(group) - 1) / 2
                places.append(x + offset * width)
                values.append(group[name])
        drawn = axis.bar(places, values, width, label=name)
        axis.bar_label(drawn, fmt='%.3g', fontsize='xx-small')
    axis.set_xticks(range(len(groups)), list(groups), rotation=20)
    if len(series) > 1:
        _legend(axis)


def lines(axis: Any, x: Sequence[float] | np.ndarray, series: Series) -> None:
    """One line for each series, with a mark at each value.

    Args:
        axis: Where to draw.
        x: Common abscissae, (N,).
        series: By name, N values.
    """
    for name, values in series.items():
        axis.plot(x, values, marker='.', label=name)
    _legend(axis)


def areas(axis: Any, x: Sequence[float] | np.ndarray, series: Series) -> None:
    """Shares, stacked up to 1.

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
    """Beside the chart, where it hides nothing."""
    axis.legend(fontsize='small', loc='upper left', bbox_to_anchor=(1, 1))


def picture_grid(
    rows: Sequence[Sequence[np.ndarray]],
    titles: Sequence[str],
    side: float = 1.6,
) -> Figure:
    """Pictures side by side, in the first one's shape, under their titles.

    Args:
        rows: In each row a picture for each title, (H, W, 3) uint8 or in
            [0, 1].
        titles: Titles of the columns.
        side: Width of a picture in inches. Defaults to 1.6.
    """
    figure, axes = panels(len(rows), len(titles), (side, side))
    for place, row in zip(axes, rows, strict=True):
        for axis, picture in zip(place, row, strict=True):
            axis.imshow(picture, interpolation='nearest', aspect='auto')
            axis.set_box_aspect(row[0].shape[0] / row[0].shape[1])
            axis.set_axis_off()
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title, fontsize='small')
    return figure
