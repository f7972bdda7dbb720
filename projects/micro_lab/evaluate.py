"""Judge a distilled micro student without any training.

    python -m projects.micro_lab.evaluate RUN CONFIG --pools POOLS

Without CONFIG its teachers are judged, and RUN only gets the scores.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config

from .scene_pool import load_pool
from .student_encoder import TeacherSides, student_encoders

TEACHERS = Path(__file__).parent / 'teachers'
# lines of the log that a value is a mean of
_LAST_LINES = 5


def zero_shot(
    run: Path, config: Path | None, pools: Path, count: int
) -> dict[str, float]:
    """Scores of image encoders in the places of the teachers' own.

    Args:
        run: Work directory of a distillation.
        config: Its config; None for the teachers' own encoders.
        pools: Where pools are kept.
        count: Test scenes.

    Returns:
        ``accuracy`` and ``ap``, those of teachers that the student has.
    """
    sides = TeacherSides(
        TEACHERS, load_pool(pools, 'test', seed=0, count=count)
    )
    encoders = sides.encoders
    if config is not None:
        known = Config.fromfile(config).model.teachers
        names = [name for name in encoders if name in known]
        checkpoint = run / (run / 'last_checkpoint').read_text()
        encoders = student_encoders(checkpoint, config, names)
    scores = {}
    if 'clip' in encoders:
        scores['accuracy'] = sides.accuracy(encoders['clip'])
    if 'grounding_dino' in encoders:
        scores['ap'] = sides.precision(encoders['grounding_dino'])
    return scores


def read_log(run: Path) -> list[dict[str, Any]]:
    """All lines of a run's logs, resumed ones too, by step."""
    rows: dict[int, dict[str, Any]] = {}
    for path in sorted(run.glob('*/vis_data/scalars.json')):
        for line in path.read_text().splitlines():
            row = json.loads(line)
            rows.setdefault(row['step'], {}).update(row)
    return [rows[step] for step in sorted(rows)]


def gap(run: Path) -> dict[str, float]:
    """Ratios of the teachers' standard deviations at a run's end.

    Args:
        run: Its work directory.

    Returns:
        ``own`` and ``unified``, if the run has two teachers and unifies
        them.
    """
    rows = read_log(run)[-_LAST_LINES:]
    keys = dict(own='std_ratio', unified='std_t2s_ratio')
    return {
        name: sum(row[key] for row in rows) / len(rows)
        for name, key in keys.items()
        if key in rows[-1]
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('run', type=Path, help='gets zero_shot.json')
    parser.add_argument('config', type=Path, nargs='?')
    parser.add_argument('--pools', type=Path, required=True)
    parser.add_argument('--count', type=int, default=2000, help='scenes')
    args = parser.parse_args()
    torch.set_num_threads(1)
    scores = zero_shot(args.run, args.config, args.pools, args.count)
    if args.config is not None:
        scores |= {f'gap_{k}': v for k, v in gap(args.run).items()}
    path = args.run / 'zero_shot.json'
    path.write_text(json.dumps(scores, indent=2) + '\n')


if __name__ == '__main__':
    main()
