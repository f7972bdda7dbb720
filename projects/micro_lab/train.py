"""Train the micro teachers and the micro sentinel on digit scenes.

One thread of a CPU, a few hours in all. Kill it whenever you like: the same
command goes on where it was. Each stage keeps checkpoint.pth, log.jsonl and
scores.json in a folder of its own; finished models, as the libraries load
them, and their cards are in OUT/teachers.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import ResNetBackbone

from kpu_mm.models.teachers import (
    CLIPTeacher,
    DINOTeacher,
    GroundingDINOTeacher,
)

from .dense_heads import DenseNet
from .digit_prompt import find_digits
from .micro_clip import CLIPNet, build_clip
from .micro_export import (
    export_clip,
    export_grounding_dino,
    export_sentinel,
    write_card,
)
from .micro_grounding_dino import (
    BACKBONE,
    CHANNELS,
    DetectorNet,
    build_detector,
)
from .micro_scores import average_precision, look, probe, zero_shot
from .micro_sentinel import SentinelNet, build_sentinel
from .scene_pool import Pool, PoolBatch, load_pool
from .stage_loop import Plan, train

TRAIN_SCENES = 40_000
TEST_SCENES = 2_000
# test scenes for the log while a detector learns
WATCHED_SCENES = 500
PROBE_SCENES = 8_000
# No two models share an ancestor.
SEEDS = {'clip': 1, 'grounding_dino': 2, 'sentinel': 3}
PLANS = {
    'backbone': Plan(160_000, 64, 3e-3, evaluate_every=10_000),
    'grounding_dino': Plan(
        32_000, 16, 1e-3, 1e-4, slow=('conv_encoder',), evaluate_every=4_000
    ),
    'clip': Plan(80_000, 32, 2e-3, 0.05, evaluate_every=10_000),
    'sentinel': Plan(
        220_000,
        16,
        1.5e-3,
        0.05,
        orthogonal=('encoder.layer',),
        evaluate_every=10_000,
        cycles=2,
    ),
}
TEXTS = {
    'clip': (
        'Micro CLIP',
        'A ResNet CLIP of open_clip that knows which caption belongs to a '
        'digit scene. It learnt from images and captions with the '
        'contrastive loss, and from what each cell shows: the digit and its '
        'clean scan.',
    ),
    'grounding_dino': (
        'Micro GroundingDINO',
        'A GroundingDINO of transformers that finds the digits which a text '
        'such as `three. one.` names. Its ResNet first learnt what each cell '
        'of a scene shows: the digit and its clean scan.',
    ),
    'sentinel': (
        'Micro DINOv2',
        'A DINOv2 of transformers. It learnt to tell where ink is, in which '
        'colour, and to give back the clean scan behind each patch and the '
        'group of scans that look like it, which a scene knows from how it '
        'was composed; no class of a digit took part.',
    ),
}


class Laboratory:
    """The stages of each model's training.

    Args:
        folder: Where everything is kept.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        pools = folder / 'pools'
        self._pool = load_pool(pools, 'train', seed=0, count=TRAIN_SCENES)
        self._test = load_pool(pools, 'test', seed=0, count=TEST_SCENES)

    def clip(self) -> None:
        """Contrastive and dense learning together."""
        torch.manual_seed(SEEDS['clip'])
        net = CLIPNet(build_clip())
        test = first(self._test, TEST_SCENES)
        encode = net.model.encode_text
        self._run(
            'clip',
            'clip',
            net,
            lambda: zero_shot(net.look, encode, net.tokens, test),
        )
        folder = self._folder / 'teachers' / 'clip'
        export_clip(net.model, folder)
        teacher = CLIPTeacher(f'local-dir:{folder}', with_text=True)
        tower: Any = teacher.model
        scores = zero_shot(
            look(teacher), tower.encode_text, teacher.tokenizer(), test
        )
        self._finish('clip', folder, scores)

    def grounding_dino(self) -> None:
        """Dense pre-training of a ResNet, then detection."""
        torch.manual_seed(SEEDS['grounding_dino'])
        dense = DenseNet(ResNetBackbone(BACKBONE), CHANNELS)
        test = first(self._test, TEST_SCENES)
        self._run(
            'grounding_dino',
            'backbone',
            dense,
            lambda: dense.accuracy(test),
        )
        torch.manual_seed(SEEDS['grounding_dino'])
        net = DetectorNet(build_detector(dense.backbone))
        self._run(
            'grounding_dino',
            'grounding_dino',
            net,
            lambda: average_precision(
                partial(find_digits, net.detector),
                self._test,
                WATCHED_SCENES,
            ),
        )
        folder = self._folder / 'teachers' / 'grounding_dino'
        export_grounding_dino(net.detector, folder)
        teacher = GroundingDINOTeacher(str(folder), with_text=True)
        scores = average_precision(
            partial(find_digits, teacher.model), self._test, TEST_SCENES
        )
        self._finish('grounding_dino', folder, scores)

    def sentinel(self) -> None:
        """Dense learning without classes of digits."""
        torch.manual_seed(SEEDS['sentinel'])
        net = SentinelNet(build_sentinel())
        seen = first(self._pool, PROBE_SCENES)
        test = first(self._test, TEST_SCENES)
        self._run(
            'sentinel',
            'sentinel',
            net,
            lambda: probe(net.features, seen, test),
        )
        folder = self._folder / 'teachers' / 'sentinel'
        export_sentinel(net.model, folder)
        scores = probe(look(DINOTeacher(str(folder))), seen, test)
        self._finish('sentinel', folder, scores)

    def _run(
        self,
        model: str,
        stage: str,
        net: nn.Module,
        evaluate: Callable[[], dict[str, float]],
    ) -> None:
        scores = train(
            self._folder / stage,
            net,
            PLANS[stage],
            TRAIN_SCENES,
            SEEDS[model],
            lambda indices: net(self._pool.batch(indices)),
            evaluate,
        )
        path = self._folder / stage / 'scores.json'
        path.write_text(json.dumps(scores, indent=2) + '\n')

    def _finish(
        self, model: str, folder: Path, scores: dict[str, float]
    ) -> None:
        title, text = TEXTS[model]
        plan = PLANS[model]
        facts = {
            'data': f'{TRAIN_SCENES} digit scenes, split train, seed 0',
            'test data': f'{TEST_SCENES} digit scenes, split test, seed 0',
            'command': f'`python -m {__package__}.train --models {model}`',
            'seed': SEEDS[model],
            'images': f'{plan.images} in batches of {plan.batch_size}',
        }
        write_card(folder, title, text, facts, scores)
        print(model, json.dumps(scores), flush=True)


def first(pool: Pool, count: int) -> PoolBatch:
    """The first scenes of a pool."""
    return pool.batch(np.arange(count))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--out', type=Path, default='work_dirs/micro')
    parser.add_argument(
        '--models',
        nargs='+',
        choices=SEEDS,
        default=['grounding_dino', 'clip', 'sentinel'],
        help='which, in this order (default: all)',
    )
    args = parser.parse_args()
    torch.set_num_threads(1)
    laboratory = Laboratory(args.out)
    for model in args.models:
        getattr(laboratory, model)()


if __name__ == '__main__':
    main()
