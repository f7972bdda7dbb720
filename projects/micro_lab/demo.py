"""Distil the micro teachers into a student, without labels, and test it.

It runs on a CPU in a few minutes and downloads nothing. The folder teachers
holds a CLIP, a GroundingDINO and a DINOv2, which are small and trained; the
images are composed when they are needed.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from mmengine.config import Config
from rich.console import Console
from rich.table import Table

from kpu_mm.models.zero_shot import Boxes
from kpu_mm.registry import MODELS
from kpu_mm.visualization import loss_curves, read_log

from .evaluate import TEACHERS, Encode, ZeroShotEvaluator, last_checkpoint, student_encoders
from .scene_pool import load_pool

LAB = Path(__file__).resolve().parent
ROOT = LAB.parents[1]
CONFIG = LAB / 'configs' / 'kpu_demo.py'
TEST_SCENES = 1000
DRAWN_SCENES = 6
# Lines of the log that are averaged, because each is of a few images.
_LAST_LINES = 10
# Boxes with a lower score are not drawn.
_THRESHOLD = 0.3
Log = Sequence[Mapping[str, float]]


def save_untrained(path: Path) -> None:
    """Save the student with the initial weights of the run's seed.

    Args:
        path: The checkpoint to write.
    """
    config = Config.fromfile(CONFIG)
    torch.manual_seed(config.randomness.seed)
    torch.save({'state_dict': MODELS.build(config.model).state_dict()}, path)


def run(tool: str, *arguments: Path | str) -> None:
    """Run one of the tools with the demo's config.

    Args:
        tool: File in the folder tools.
        arguments: Arguments after the config.
    """
    command = [sys.executable, str(ROOT / 'tools' / tool), str(CONFIG)]
    # The config imports the lab, which is not installed.
    env = {**os.environ, 'PYTHONPATH': str(ROOT)}
    subprocess.run([*command, *map(str, arguments)], env=env, check=True)


def show_scores(evaluator: ZeroShotEvaluator, students: dict[str, dict[str, Encode]]) -> None:
    """Print accuracy and AP of the students and of their teachers.

    Args:
        evaluator: Evaluates image encoders.
        students: Image encoders of each student by teacher.
    """
    table = Table(title='On test digits and test photographs')
    table.add_column('image encoder')
    table.add_column('zero-shot top-1 (chance 0.10)', justify='right')
    table.add_column('zero-shot AP', justify='right')
    for name, encoders in students.items():
        accuracy = evaluator.accuracy(encoders['clip'])
        precision = evaluator.precision(encoders['grounding_dino'])
        table.add_row(name, f'{accuracy:.3f}', f'{precision:.3f}')
    own = evaluator.encoders
    table.add_row('CLIP', f'{evaluator.accuracy(own["clip"]):.3f}', '')
    precision = evaluator.precision(own['grounding_dino'])
    table.add_row('GroundingDINO', '', f'{precision:.3f}')
    Console(width=79).print(table)


def show_gap(log: Log) -> None:
    """Print how far apart the teachers' standard deviations are.

    Args:
        log: Logged values, one mapping per logged iteration.
    """
    own, unified = (
        np.mean([row[key] for row in log[-_LAST_LINES:]]) for key in ('std_ratio', 'std_t2s_ratio')
    )
    print(
        "Largest / smallest standard deviation of the teachers' maps: "
        f'{own:.2f} in their own spaces, {unified:.2f} unified.'
    )


def draw_gap(log: Log, path: Path) -> None:
    """Plot the ratio of the teachers' standard deviations.

    Args:
        log: Logged values, one mapping per logged iteration.
        path: PNG to write.
    """
    labels = {'std_ratio': 'in their own spaces', 'std_t2s_ratio': 'unified'}
    figure, axis = _plot(log, labels, (7, 3.5))
    axis.axhline(1, color='0.7', lw=1)
    axis.set(ylabel='largest / smallest standard deviation')
    axis.legend()
    figure.savefig(path, dpi=120)


def _plot(log: Log, labels: Mapping[str, str], size: tuple[float, float]) -> tuple[Figure, Any]:
    figure = Figure(figsize=size, layout='constrained')
    axis = figure.subplots()
    steps = [row['step'] for row in log]
    for key, label in labels.items():
        axis.plot(steps, [row[key] for row in log], label=label)
    axis.set(xlabel='iteration')
    return figure, axis


def draw_detections(images: np.ndarray, found: Mapping[str, Sequence[Boxes]], path: Path) -> None:
    """Draw the boxes of several detectors in the same scenes.

    Args:
        images: (N, H, W, 3) uint8.
        found: Boxes of each detector, which gets a row of the picture.
        path: PNG to write.
    """
    figure = Figure(figsize=(1.7 * len(images), 1.9 * len(found)), layout='constrained')
    axes = figure.subplots(len(found), len(images), squeeze=False)
    for row, (name, all_boxes) in zip(axes, found.items(), strict=True):
        for axis, image, boxes in zip(row, images, all_boxes, strict=True):
            axis.imshow(image)
            axis.set(xticks=[], yticks=[])
            _draw_boxes(axis, boxes, len(image))
        row[0].set_ylabel(name)
    figure.savefig(path, dpi=120)


def _draw_boxes(axis: Any, found: Boxes, size: int) -> None:
    for box, score, label in zip(size * found.boxes, found.scores, found.labels, strict=True):
        # Boxes are sorted by score.
        if score < _THRESHOLD:
            return
        x1, y1, x2, y2 = box.tolist()
        colour = f'C{int(label)}'
        # imshow puts the centre, not the corner, of the first pixel at 0.
        axis.add_patch(Rectangle((x1 - 0.5, y1 - 0.5), x2 - x1, y2 - y1, fill=False, ec=colour))
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
    """Copy the newest PCA picture of each stream into the work directory.

    Args:
        work_dir: Work directory of the run.

    Returns:
        The copies.
    """
    newest: dict[str, Path] = {}
    for panel in sorted(
        work_dir.glob('*/vis_data/vis_image/pca_*.png'),
        # The folder is named by its time, the file by its stream and step.
        key=lambda p: (p.parents[2].name, int(p.stem.rsplit('_', 1)[1])),
    ):
        newest[panel.stem.rsplit('_', 1)[0]] = panel
    return [Path(shutil.copy(panel, work_dir / f'{name}.png')) for name, panel in newest.items()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--work-dir', type=Path, default='work_dirs/demo')
    work_dir = parser.parse_args().work_dir.resolve()
    work_dir.mkdir(parents=True, exist_ok=True)
    untrained = work_dir / 'untrained.pth'
    save_untrained(untrained)
    run('train.py', '--work-dir', work_dir)
    checkpoint = last_checkpoint(work_dir)
    # Replace the export of an earlier run.
    exported = work_dir / 'student'
    shutil.rmtree(exported, ignore_errors=True)
    run('export.py', checkpoint, exported)

    log = read_log(work_dir)
    loss_curves(log).savefig(work_dir / 'losses.png', dpi=120)
    draw_gap(log, work_dir / 'gap.png')
    pool = load_pool(work_dir / 'pools', 'test', seed=0, count=TEST_SCENES)
    evaluator = ZeroShotEvaluator(TEACHERS, pool)
    students = {
        'student, untrained': student_encoders(untrained, CONFIG),
        'student': student_encoders(checkpoint, CONFIG),
    }
    show_scores(evaluator, students)
    show_gap(log)
    scenes = pool.take(slice(DRAWN_SCENES)).images
    detectors = {**students, 'teacher': evaluator.encoders}
    draw_detections(
        scenes.numpy(),
        {
            name: evaluator.detect(encoders['grounding_dino'], scenes)
            for name, encoders in detectors.items()
        },
        work_dir / 'detections.png',
    )
    first, last = log[0]['loss'], np.mean([row['loss'] for row in log[-3:]])
    print(f'\nLoss {first:.3f} at the start, {last:.3f} at the end.')
    for what, path in [
        ('student', exported),
        ('checkpoint', checkpoint),
        ('loss curves', work_dir / 'losses.png'),
        ("teachers' gap", work_dir / 'gap.png'),
        ('detections', work_dir / 'detections.png'),
        *[('image | teacher | student (PCA)', p) for p in collect_panels(work_dir)],
    ]:
        print(f'{what}: {os.path.relpath(path)}')


if __name__ == '__main__':
    main()
