"""Draw docs/method.svg, one training step: python docs/draw_method.py."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl

mpl.use('svg')
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch

FROZEN, TRAINED, SPACE, PLAIN = '#d6e4f5', '#fde3c3', '#e2f0d9', '#f2f2f2'


def box(axis: Axes, x: float, y: float, w: float, h: float, text: str, colour: str) -> None:
    """A rounded box with its text in the middle."""
    axis.add_patch(
        FancyBboxPatch(
            (x, y),
            w,
            h,
            boxstyle='round,pad=0.04,rounding_size=0.12',
            facecolor=colour,
            edgecolor='#444444',
        )
    )
    axis.text(x + w / 2, y + h / 2, text, ha='center', va='center', size=9)


def arrow(
    axis: Axes,
    start: tuple[float, float],
    end: tuple[float, float],
    text: str = '',
    style: str = '->',
    at: tuple[float, float] = (0, 0.12),
) -> None:
    """An arrow, its text beside the middle."""
    axis.annotate('', end, start, arrowprops=dict(arrowstyle=style, color='#444444'))
    middle = ((start[0] + end[0]) / 2 + at[0], (start[1] + end[1]) / 2 + at[1])
    axis.text(*middle, text, ha='center', va='bottom', size=9)


def main() -> None:
    """Draw and save."""
    plt.rcParams.update({'svg.hashsalt': 'kpu_mm', 'font.family': 'DejaVu Sans'})
    figure, axis = plt.subplots(figsize=(10, 4.4), layout='constrained')
    axis.set(xlim=(-0.1, 12.3), ylim=(-0.2, 5.3))
    axis.axis('off')

    box(axis, 0, 3.7, 1.6, 0.9, 'stream of\nteacher t\n(raw RGB)', PLAIN)
    box(axis, 2.5, 3.7, 2.6, 0.9, 'teacher t\nCLIP, GroundingDINO, …', FROZEN)
    box(axis, 2.5, 0.2, 2.6, 0.8, 'sentinel: DINOv2 ViT', FROZEN)
    box(axis, 2.5, 1.5, 2.6, 0.8, 'ViT-Adapter', TRAINED)
    axis.annotate('', (3.8, 1.46), (3.8, 1.04), arrowprops=dict(arrowstyle='<->', color='#444444'))
    axis.text(3.95, 1.25, 'inject, extract', va='center', size=8)
    arrow(axis, (1.66, 4.15), (2.44, 4.15))
    arrow(axis, (0.8, 3.64), (2.44, 1.9))

    box(axis, 7.0, 3.7, 1.6, 0.9, 'teacher\u2019s\nfeatures $X^t$', SPACE)
    box(axis, 7.0, 1.0, 1.6, 0.9, 'student\u2019s\nfeatures $X$', SPACE)
    arrow(axis, (5.16, 4.15), (6.94, 4.15))
    arrow(axis, (5.16, 1.7), (6.94, 1.45))

    box(axis, 9.9, 4.2, 2.2, 0.7, r'$h_{s2t}^t(X)$', TRAINED)
    box(axis, 9.9, 2.75, 2.2, 0.7, r'$h_{rec}^t(h_{t2s}^t(X^t))$', TRAINED)
    box(axis, 9.9, 1.1, 2.2, 0.7, r'$h_{t2s}^t(X^t)$', TRAINED)
    arrow(axis, (8.66, 4.3), (9.84, 4.5), r'$L_{s2t}$', '<->')
    arrow(axis, (8.66, 4.0), (9.84, 3.2), r'$L_{rec}$', '<->', (0.15, 0.05))
    arrow(axis, (8.66, 1.45), (9.84, 1.45), r'$L_{t2s}$', '<->')
    arrow(axis, (11.0, 1.86), (11.0, 2.7))

    for i, (colour, text) in enumerate(
        [(FROZEN, 'frozen'), (TRAINED, 'trained'), (SPACE, 'features')]
    ):
        box(axis, 5.9 + 1.9 * i, -0.05, 0.25, 0.25, '', colour)
        axis.text(6.3 + 1.9 * i, 0.08, text, va='center', size=9)
    figure.savefig(Path(__file__).with_name('method.svg'), metadata={'Date': None})


if __name__ == '__main__':
    main()
