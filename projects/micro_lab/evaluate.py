"""Evaluate a distilled micro student without any training.

    python -m projects.micro_lab.evaluate RUN CONFIG --pools POOLS

The student replaces the image encoders of CLIP and GroundingDINO. Without
CONFIG the teachers themselves are evaluated. The scores go to
RUN/zero_shot.json.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from torch import Tensor

from kpu_mm.models.teachers import CLIPTeacher
from kpu_mm.models.zero_shot import Boxes, GroundingDecoder, ProjectedBackbone
from kpu_mm.structures import Features

from .materials import DIGIT_WORDS
from .micro_scores import average_precision, features_of, zero_shot_accuracy
from .scene_pool import Scenes, load_pool

TEACHERS = Path(__file__).resolve().parent / 'teachers'
# Lines of the log that are averaged, because each is of a few images.
_LAST_LINES = 5
# From raw images (B, 3, H, W) to features in a teacher's space.
Encode = Callable[[Tensor], Features]


class ZeroShotEvaluator:
    """CLIP's text tower and GroundingDINO's decoder with labelled scenes.

    Args:
        folder: Folder of the teachers.
        pool: Scenes, all of which are used.

    Attributes:
        encoders: The teachers' own image encoders by name.
    """

    def __init__(self, folder: Path, pool: Scenes) -> None:
        self._pool = pool
        self._clip = CLIPTeacher(f'local-dir:{folder / "clip"}', with_text=True)
        self._decoder = GroundingDecoder(dict(source=str(folder / 'grounding_dino')))
        self.encoders: dict[str, Encode] = {
            'clip': self._clip,
            'grounding_dino': self._decoder.teacher,
        }

    def accuracy(self, encode: Encode) -> float:
        """Return the zero-shot top-1 accuracy for the dominant digit.

        Args:
            encode: Replaces CLIP's image tower.
        """
        text_tower: Any = self._clip.model
        scores = zero_shot_accuracy(
            features_of(encode), text_tower.encode_text, self._clip.tokenizer(), self._pool
        )
        return scores['zero_shot_top1']

    def precision(self, encode: Encode) -> float:
        """Return the zero-shot AP for all digits.

        Args:
            encode: Replaces GroundingDINO's image backbone.
        """
        detector = partial(self.detect, encode)
        count = len(self._pool.images)
        return average_precision(detector, self._pool, count)['AP']

    @torch.no_grad()
    def detect(self, encode: Encode, images: Tensor) -> list[Boxes]:
        """Detect the digits of scenes.

        Args:
            encode: Replaces GroundingDINO's image backbone.
            images: (B, H, W, 3) uint8.
        """
        # (B, H, W, 3) -> (B, 3, H, W)
        maps = encode(images.permute(0, 3, 1, 2)).maps
        return self._decoder.detect(maps, DIGIT_WORDS)


def student_encoders(
    checkpoint: Path, config: Path, names: Iterable[str] = ('clip', 'grounding_dino')
) -> dict[str, Encode]:
    """Load a student as a replacement of its teachers' image encoders.

    Args:
        checkpoint: Checkpoint of a distillation run.
        config: Config of the run.
        names: Names of the teachers. Defaults to ('clip',
            'grounding_dino').
    """
    return {name: ProjectedBackbone(checkpoint, name, config).encode for name in names}


def last_checkpoint(run: Path) -> Path:
    """Return the last checkpoint of a run.

    Args:
        run: Work directory.
    """
    return run / (run / 'last_checkpoint').read_text()


def evaluate_zero_shot(run: Path, config: Path | None, pools: Path, count: int) -> dict[str, float]:
    """Score image encoders as replacements of the teachers' own.

    Args:
        run: Work directory of a distillation.
        config: Config of the run; None for the teachers' own encoders.
        pools: Folder of the pools.
        count: Number of test scenes.

    Returns:
        ``accuracy`` with CLIP and ``ap`` with GroundingDINO, as far as the
        student has these teachers.
    """
    evaluator = ZeroShotEvaluator(TEACHERS, load_pool(pools, 'test', seed=0, count=count))
    encoders = evaluator.encoders
    if config is not None:
        teachers = Config.fromfile(config).model.teachers
        names = [name for name in encoders if name in teachers]
        encoders = student_encoders(last_checkpoint(run), config, names)
    scores = {}
    if 'clip' in encoders:
        scores['accuracy'] = evaluator.accuracy(encoders['clip'])
    if 'grounding_dino' in encoders:
        scores['ap'] = evaluator.precision(encoders['grounding_dino'])
    return scores


def read_log(run: Path) -> list[dict[str, Any]]:
    """Read a run's logged values, one dict per step.

    The logs of a run that was resumed are joined.

    Args:
        run: Work directory.
    """
    rows: dict[int, dict[str, Any]] = {}
    for path in sorted(run.glob('*/vis_data/scalars.json')):
        for line in path.read_text().splitlines():
            row = json.loads(line)
            # A validation logs at the step that it follows.
            rows.setdefault(row['step'], {}).update(row)
    return [rows[step] for step in sorted(rows)]


def teacher_gap(run: Path) -> dict[str, float]:
    """Return the ratios of the teachers' standard deviations at the end.

    Args:
        run: Work directory of a distillation.

    Returns:
        ``gap_own`` in the teachers' own spaces and ``gap_unified`` in the
        shared space, as far as the run logs them.
    """
    rows = read_log(run)[-_LAST_LINES:]
    keys = dict(gap_own='std_ratio', gap_unified='std_t2s_ratio')
    return {
        name: sum(row[key] for row in rows) / len(rows)
        for name, key in keys.items()
        if key in rows[-1]
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('run', type=Path, help='gets zero_shot.json')
    parser.add_argument('config', type=Path, nargs='?')
    parser.add_argument('--pools', type=Path, required=True)
    parser.add_argument('--count', type=int, default=2000, help='scenes')
    args = parser.parse_args()
    # reproduce.py runs several jobs at a time.
    torch.set_num_threads(1)
    scores = evaluate_zero_shot(args.run, args.config, args.pools, args.count)
    if args.config is not None:
        scores |= teacher_gap(args.run)
    path = args.run / 'zero_shot.json'
    path.write_text(json.dumps(scores, indent=2) + '\n')


if __name__ == '__main__':
    main()
