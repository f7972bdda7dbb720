"""Pictures of what the demo's run has learnt."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np

from kpu_mm.models.zero_shot import Boxes

mpl.use('Agg')
import matplotlib.pyplot as plt

Log = Sequence[Mapping[str, float]]
# boxes that score less are not drawn
_THRESHOLD = 0.3


def draw_losses(log: Log, path: Path) -> None:
    """Plot total and terms over iterations.

    Args:
        log: One mapping for each logged iteration.
        path: PNG to write.
    """
    steps = [row['step'] for row in log]
    figure, axis = plt.subplots(figsize=(7, 4), layout='constrained')
    axis.plot(steps, [row['loss'] for row in log], 'k', lw=2, label='L_KPU')
    for key in [k for k in log[0] if k.split('/')[0] in ('s2t', 't2s', 'rec')]:
        axis.plot(steps, [row[key] for row in log], label=key)
    axis.set(xlabel='iteration', ylabel='loss', ylim=(0, None))
    axis.legend(ncols=2)
    figure.savefig(path, dpi=120)


def draw_gap(log: Log, path: Path) -> None:
    """Plot how far apart the teachers' standard deviations are.

    Args:
        log: One mapping for each logged iteration.
        path: PNG to write.
    """
    steps = [row['step'] for row in log]
    figure, axis = plt.subplots(figsize=(7, 3.5), layout='constrained')
    for key, label in (
        ('std_ratio', 'in their own spaces'),
        ('std_t2s_ratio', 'unified'),
    ):
        axis.plot(steps, [row[key] for row in log], label=label)
    axis.axhline(1, color='0.7', lw=1)
    axis.set(
        xlabel='iteration', ylabel='largest / smallest standard deviation'
    )
    axis.legend()
    figure.savefig(path, dpi=120)


def draw_detections(
    images: np.ndarray, found: Mapping[str, Sequence[Boxes]], path: Path
) -> None:
    """Draw what several detectors find in the same scenes.

    Args:
        images: (N, H, W, 3) uint8.
        found: For each detector, a row of the picture, its boxes.
        path: PNG to write.
    """
    figure, axes = plt.subplots(
        len(found),
        len(images),
        figsize=(1.7 * len(images), 1.9 * len(found)),
        layout='constrained',
        squeeze=False,
    )
    for row, (name, all_boxes) in zip(axes, found.items(), strict=True):
        for axis, image, boxes in zip(row, images, all_boxes, strict=True):
            axis.imshow(image)
            axis.set(xticks=[], yticks=[])
            _draw_boxes(axis, boxes, len(image))
        row[0].set_ylabel(name)
    figure.savefig(path, dpi=120)


def _draw_boxes(axis: plt.Axes, found: Boxes, size: int) -> None:
    for box, score, label in zip(
        size * found.boxes, found.scores, found.labels, strict=True
    ):
        if score < _THRESHOLD:
            return
        x1, y1, x2, y2 = box.tolist()
        colour = f'C{int(label)}'
        axis.add_patch(
            plt.Rectangle(
                (x1 - 0.5, y1 - 0.5), x2 - x1, y2 - y1, fill=False, ec=colour
            )
        )
        axis.text(
            x1,
            y1,
            f'{found.names[int(label)]} {score:.1f}',
            fontsize=6,
            color='white',
            backgroundcolor=colour,
            bbox=dict(pad=0.5, lw=0, color=colour),
        )


def collect_panels(work_dir: Path) -> list[Path]:
    """Copy the newest PCA panel of each stream into the work directory.

    Args:
        work_dir: Of the run.

    Returns:
        The copies.
    """
    newest: dict[str, Path] = {}
    for panel in sorted(
        work_dir.glob('*/vis_data/vis_image/pca_*.png'),
        key=lambda p: (p.parents[2].name, int(p.stem.rsplit('_', 1)[1])),
    ):
        newest[panel.stem.rsplit('_', 1)[0]] = panel
    return [
        Path(shutil.copy(panel, work_dir / f'{name}.png'))
        for name, panel in newest.items()
    ]
