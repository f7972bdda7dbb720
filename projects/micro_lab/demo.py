"""Distil the micro teachers into a student, without labels, and test it.

Runs on a CPU in a few minutes and needs no downloads: a CLIP, a
GroundingDINO and a DINOv2, small but trained, lie in the folder
teachers; the images are composed on the spot.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from rich.console import Console
from rich.table import Table

from kpu_mm.registry import MODELS

from .demo_pictures import (
    Log,
    collect_panels,
    draw_detections,
    draw_gap,
    draw_losses,
)
from .scene_pool import load_pool
from .student_encoder import Encode, TeacherSides, student_encoders

LAB = Path(__file__).resolve().parent
ROOT = LAB.parents[1]
TEACHERS = LAB / 'teachers'
CONFIG = LAB / 'configs' / 'kpu_demo.py'
TEST_SCENES = 1000
DRAWN_SCENES = 6
# of the log, whose values are of few images
_LAST_ROWS = 10


def save_untrained(path: Path) -> None:
    """Save the student as the run's seed makes it."""
    config = Config.fromfile(CONFIG)
    torch.manual_seed(config.randomness.seed)
    torch.save({'state_dict': MODELS.build(config.model).state_dict()}, path)


def run(tool: str, *arguments: Path | str) -> None:
    """Run one of the project's tools."""
    command = [sys.executable, str(ROOT / 'tools' / tool), str(CONFIG)]
    # the config imports the lab, which is not installed
    env = {**os.environ, 'PYTHONPATH': str(ROOT)}
    subprocess.run([*command, *map(str, arguments)], env=env, check=True)


def read_log(work_dir: Path) -> list[dict[str, float]]:
    """The newest run's logged values, one dict for each logged iteration."""
    path = sorted(work_dir.glob('*/vis_data/scalars.json'))[-1]
    return [json.loads(line) for line in path.read_text().splitlines()]


def show_scores(
    sides: TeacherSides, students: dict[str, dict[str, Encode]]
) -> None:
    """Print accuracy and AP of the student and of its teachers."""
    table = Table(title='On test digits and test photographs')
    table.add_column('image encoder')
    table.add_column('zero-shot top-1 (chance 0.10)', justify='right')
    table.add_column('zero-shot AP', justify='right')
    for name, encoders in students.items():
        accuracy = sides.accuracy(encoders['clip'])
        precision = sides.precision(encoders['grounding_dino'])
        table.add_row(name, f'{accuracy:.3f}', f'{precision:.3f}')
    own = sides.encoders
    table.add_row('CLIP', f'{sides.accuracy(own["clip"]):.3f}', '')
    precision = sides.precision(own['grounding_dino'])
    table.add_row('GroundingDINO', '', f'{precision:.3f}')
    Console(width=79).print(table)


def show_gap(log: Log) -> None:
    """Print how far apart the teachers' standard deviations are."""
    own, unified = (
        np.mean([row[key] for row in log[-_LAST_ROWS:]])
        for key in ('std_ratio', 'std_t2s_ratio')
    )
    print(
        "Largest / smallest standard deviation of the teachers' maps: "
        f'{own:.2f} in their own spaces, {unified:.2f} unified.'
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--work-dir', type=Path, default='work_dirs/demo')
    work_dir = parser.parse_args().work_dir.resolve()
    work_dir.mkdir(parents=True, exist_ok=True)
    untrained = work_dir / 'untrained.pth'
    save_untrained(untrained)
    run('train.py', '--work-dir', work_dir)
    checkpoint = work_dir / (work_dir / 'last_checkpoint').read_text()
    exported = work_dir / 'student'
    shutil.rmtree(exported, ignore_errors=True)
    run('export.py', checkpoint, exported)

    log = read_log(work_dir)
    draw_losses(log, work_dir / 'losses.png')
    draw_gap(log, work_dir / 'gap.png')
    pool = load_pool(work_dir / 'pools', 'test', seed=0, count=TEST_SCENES)
    sides = TeacherSides(TEACHERS, pool)
    students = {
        'student, untrained': student_encoders(untrained, CONFIG),
        'student': student_encoders(checkpoint, CONFIG),
    }
    show_scores(sides, students)
    show_gap(log)
    scenes = pool.batch(np.arange(DRAWN_SCENES)).images
    places = {**students, 'teacher': sides.encoders}
    draw_detections(
        scenes.numpy(),
        {
            name: sides.find(encoders['grounding_dino'], scenes)
            for name, encoders in places.items()
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
        *[
            ('image | teacher | student (PCA)', p)
            for p in collect_panels(work_dir)
        ],
    ]:
        print(f'{what}: {os.path.relpath(path)}')


if __name__ == '__main__':
    main()
