"""Score a distilled micro student, zero-shot and by linear probes.

    python -m projects.micro_lab.evaluate RUN CONFIG --pools POOLS

Zero-shot the student replaces the image encoders of CLIP and GroundingDINO.
Linear probes are trained on its frozen features with few labels and with
many. Without CONFIG the teachers themselves and the sentinel are scored. The
scores go to RUN/scores.json.
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

from kpu_mm.models.student import open_student
from kpu_mm.models.teachers import CLIPTeacher
from kpu_mm.models.teachers.base_teacher import build_teacher
from kpu_mm.models.zero_shot import Boxes, GroundingDecoder, ProjectedBackbone
from kpu_mm.registry import MODELS
from kpu_mm.structures import Features
from kpu_mm.visualization import read_log

from .materials import DIGIT_WORDS
from .micro_scores import (
    PROBE_STEPS,
    average_precision,
    features_of,
    joined_features,
    probe,
    zero_shot_accuracy,
)
from .scene_pool import SIZE, Scenes, load_pool

TEACHERS = Path(__file__).resolve().parent / 'teachers'
KPU = Path(__file__).resolve().parent / 'configs' / 'kpu.py'
# labelled scenes of the probes: few and many
LABELS = (200, 8000)
# Lines of the log that are averaged, because each is of a few images.
_LAST_LINES = 5
# From raw images (B, 3, H, W) to features in a teacher's space.
Encode = Callable[[Tensor], Features]
Scores = dict[str, Any]


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


def evaluate_zero_shot(run: Path, config: Path | None, pools: Path, count: int) -> Scores:
    """Score image encoders as replacements of the teachers' own.

    Each is scored on images of the size of the teacher's stream.

    Args:
        run: Work directory of a distillation.
        config: Config of the run; None for the teachers' own encoders.
        pools: Folder of the pools.
        count: Number of test scenes.

    Returns:
        ``accuracy`` with CLIP and ``ap`` with GroundingDINO, as far as the
        student has these teachers.
    """
    settings = Config.fromfile(config or KPU)
    names = [name for name in ('clip', 'grounding_dino') if name in settings.model.teachers]
    encoders = {} if config is None else student_encoders(last_checkpoint(run), config, names)
    scores = {}
    for name in names:
        size = settings.train_dataloader[name].dataset.sources.get('size', SIZE)
        pool = load_pool(pools, 'test', seed=0, count=count, size=size)
        evaluator = ZeroShotEvaluator(TEACHERS, pool)
        encode = encoders.get(name, evaluator.encoders[name])
        if name == 'clip':
            scores['accuracy'] = evaluator.accuracy(encode)
        else:
            # the evaluator's own detector takes maps that are not scaled
            scale = settings.model.teachers[name].get('scale', 1)
            scores['ap'] = evaluator.precision(_divided(encode, scale))
    return scores


def _divided(encode: Encode, scale: float) -> Encode:
    """Maps for a detector that takes smaller ones (scaled_teacher.py)."""

    def divided(images: Tensor) -> Features:
        features = encode(images)
        return features._replace(maps=tuple(m / scale for m in features.maps))

    return divided


def evaluate_probes(encode: Encode, pools: Path, count: int, steps: int = PROBE_STEPS) -> Scores:
    """Train linear probes on frozen features and score them.

    Args:
        encode: Raw images to features.
        pools: Folder of the pools.
        count: Number of test scenes.
        steps: Steps of each probe. Defaults to 600.

    Returns:
        For each number of labels top-1 of the dominant digit and mIoU on
        cells of 8 x 8 pixels, such as ``top1_200`` and ``miou_200``.
    """
    # The teachers were trained on seed 0, students are distilled on seed 1.
    train = load_pool(pools, 'train', seed=2, count=max(LABELS))
    test = load_pool(pools, 'test', seed=0, count=count)
    scores = {}
    for labels in LABELS:
        found = probe(joined_features(encode), train.take(slice(labels)), test, steps)
        scores[f'top1_{labels}'] = found['probe_top1']
        scores[f'miou_{labels}'] = found['patch_miou']
    return scores


def student_backbone(config: Path, checkpoint: Path | None, seed: int = 0) -> Encode:
    """A student's own features, before any projector.

    Args:
        config: Config of its distillation.
        checkpoint: Its weights; None leaves the adapter untrained.
        seed: Seed of the initial weights. Defaults to 0.
    """
    if checkpoint is not None:
        backbone = open_student(checkpoint, config).backbone
    else:
        torch.manual_seed(seed)
        backbone = MODELS.build(dict(Config.fromfile(config).model.student, out_type='features'))
        backbone.init_weights()
    encode: Encode = backbone.eval().encode
    return encode


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
    parser.add_argument('run', type=Path, help='gets scores.json')
    parser.add_argument('config', type=Path, nargs='?')
    parser.add_argument('--pools', type=Path, required=True)
    parser.add_argument('--count', type=int, default=2000, help='test scenes')
    parser.add_argument(
        '--untrained', type=int, metavar='SEED', help='score the student before any distillation'
    )
    parser.add_argument('--probe-steps', type=int, default=PROBE_STEPS)
    args = parser.parse_args()
    # reproduce.py runs several jobs at a time.
    torch.set_num_threads(1)
    run, config, places = args.run, args.config, (args.pools, args.count)
    probes = (*places, args.probe_steps)
    if config is None:
        scores = {'zero-shot': evaluate_zero_shot(run, None, *places)}
        scores |= {name: evaluate_probes(e, *probes) for name, e in frozen_models().items()}
    elif args.untrained is not None:
        scores = evaluate_probes(student_backbone(config, None, args.untrained), *probes)
    else:
        scores = evaluate_zero_shot(run, config, *places) | teacher_gap(run)
        scores |= evaluate_probes(student_backbone(config, last_checkpoint(run)), *probes)
    run.mkdir(parents=True, exist_ok=True)
    (run / 'scores.json').write_text(json.dumps(scores, indent=2) + '\n')


def frozen_models() -> dict[str, Encode]:
    """The teachers and the sentinel of the lab, by name."""
    teachers = dict(Config.fromfile(KPU).model.teachers)
    teachers['sentinel'] = dict(
        type='kpu_mm.DINOTeacher', source=str(TEACHERS / 'general_sentinel')
    )
    return {name: build_teacher(name, config).encode for name, config in teachers.items()}


if __name__ == '__main__':
    main()
