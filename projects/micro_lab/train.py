"""Train the micro teachers and the two micro sentinels.

This takes a few hours on one thread of a CPU. It may be killed at any time;
the same command then continues. Each stage writes checkpoint.pth, log.jsonl
and scores.json to a folder of its own. Finished models, in the formats of
their libraries, and their cards are in OUT/teachers.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import ResNetBackbone

from kpu_mm.models.teachers import CLIPTeacher, DINOTeacher, GroundingDINOTeacher

from .dense_heads import DenseNet
from .materials import Split
from .micro_clip import CLIPNet, build_clip, export_clip
from .micro_grounding_dino import (
    BACKBONE,
    CHANNELS,
    DetectorNet,
    build_detector,
    export_grounding_dino,
)
from .micro_scores import (
    FeatureFunction,
    average_precision,
    features_of,
    find_digits,
    glyph_iou,
    probe,
    zero_shot_accuracy,
)
from .micro_sentinel import SentinelNet, build_sentinel, export_sentinel
from .scene_pool import Scenes, load_pool
from .stage_loop import Plan, train_stage

SPLITS: tuple[Split, ...] = ('train', 'test')
TRAIN_SCENES = 40_000
TEST_SCENES = 2_000
# Test scenes of each evaluation during the training of the detector.
WATCHED_SCENES = 500
# Training scenes of the linear probes.
PROBE_SCENES = 8_000
# Different seeds, so that no two models share initial weights.
SEEDS = {'clip': 1, 'grounding_dino': 2, 'sentinel': 3, 'general_sentinel': 4}
PLANS = {
    'backbone': Plan(160_000, 64, 3e-3, evaluate_every=10_000),
    # Pre-trained weights learn more slowly than the new ones.
    'grounding_dino': Plan(32_000, 16, 1e-3, 1e-4, slow=('conv_encoder',), evaluate_every=4_000),
    'clip': Plan(80_000, 32, 2e-3, 0.05, evaluate_every=10_000),
    'sentinel': Plan(
        220_000, 16, 1.5e-3, 0.05, orthogonal=('encoder.layer',), evaluate_every=10_000, cycles=2
    ),
    'general_sentinel': Plan(
        160_000, 16, 1.5e-3, 0.05, orthogonal=('encoder.layer',), evaluate_every=20_000
    ),
}
TEXTS = {
    'clip': (
        'Micro CLIP',
        'A ResNet CLIP of open_clip that matches captions and digit scenes. '
        'It was trained with the contrastive loss on images and captions, '
        'and to predict the digit of each cell and its clean scan.',
    ),
    'grounding_dino': (
        'Micro GroundingDINO',
        'A GroundingDINO of transformers that finds the digits which a text such as `three. one.` '
        'names. Its ResNet was first trained to predict the digit of each cell and its clean scan.',
    ),
    'sentinel': (
        'Micro DINOv2',
        'A DINOv2 of transformers. It was trained to predict where ink is and in which colour, the '
        'clean scan behind each patch, and the group of scans that look like it. These targets '
        'come from the composition of the scenes; no class of a digit was used.',
    ),
    'general_sentinel': (
        'Micro DINOv2, general',
        'The model and targets of the micro DINOv2 on scenes of letters and signs, which look like '
        'no digit. It has never seen a digit, neither as an image nor as a class.',
    ),
}


class Laboratory:
    """Trains, exports and scores each model.

    Args:
        folder: The folder of all results.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        pools = folder / 'pools'
        self._pool = load_pool(pools, 'train', seed=0, count=TRAIN_SCENES)
        self._test = load_pool(pools, 'test', seed=0, count=TEST_SCENES)

    def clip(self) -> None:
        """Train CLIP with contrastive and dense losses together."""
        torch.manual_seed(SEEDS['clip'])
        net = CLIPNet(build_clip())
        test = self._test.take(slice(TEST_SCENES))
        encode = net.model.encode_text
        self._run(
            'clip', 'clip', net, lambda: zero_shot_accuracy(net.features, encode, net.tokens, test)
        )
        folder = self._folder / 'teachers' / 'clip'
        export_clip(net.model, folder)
        # The card has the scores of the files, which are fp16.
        teacher = CLIPTeacher(f'local-dir:{folder}', with_text=True)
        tower: Any = teacher.model
        scores = zero_shot_accuracy(
            features_of(teacher), tower.encode_text, teacher.tokenizer(), test
        )
        self._finish('clip', folder, scores)

    def grounding_dino(self) -> None:
        """Pre-train a ResNet with dense losses, then train the detector."""
        torch.manual_seed(SEEDS['grounding_dino'])
        dense = DenseNet(ResNetBackbone(BACKBONE), CHANNELS)
        test = self._test.take(slice(TEST_SCENES))
        self._run('grounding_dino', 'backbone', dense, lambda: dense.accuracy(test))
        # Seeded again, so that the detector does not depend on the stage
        # before, which may have been finished by an earlier process.
        torch.manual_seed(SEEDS['grounding_dino'])
        net = DetectorNet(build_detector(dense.backbone))
        self._run(
            'grounding_dino',
            'grounding_dino',
            net,
            lambda: average_precision(
                partial(find_digits, net.detector), self._test, WATCHED_SCENES
            ),
        )
        folder = self._folder / 'teachers' / 'grounding_dino'
        export_grounding_dino(net.detector, folder)
        teacher = GroundingDINOTeacher(str(folder), with_text=True)
        scores = average_precision(partial(find_digits, teacher.model), self._test, TEST_SCENES)
        self._finish('grounding_dino', folder, scores)

    def sentinel(self) -> None:
        """Train DINOv2 without the classes of the digits."""
        torch.manual_seed(SEEDS['sentinel'])
        net = SentinelNet(build_sentinel())
        train = self._pool.take(slice(PROBE_SCENES))
        test = self._test.take(slice(TEST_SCENES))
        self._run('sentinel', 'sentinel', net, lambda: probe(net.features, train, test))
        folder = self._folder / 'teachers' / 'sentinel'
        export_sentinel(net.model, folder)
        features = features_of(DINOTeacher(str(folder)))
        scores = probe(features, train, test)
        self._finish('sentinel', folder, scores)

    def general_sentinel(self) -> None:
        """Train DINOv2 on letters and signs, without any digit."""
        pools = self._folder / 'pools'
        letters = load_pool(pools, 'train', 0, TRAIN_SCENES, 'letters')
        scripts = [load_pool(pools, split, 0, TEST_SCENES, 'scripts') for split in SPLITS]
        digits = self._pool.take(slice(PROBE_SCENES)), self._test.take(slice(TEST_SCENES))

        def scores(features: FeatureFunction) -> dict[str, float]:
            iou = glyph_iou(features, *scripts)
            return {**probe(features, *digits), 'iou_of_unseen_scripts': iou}

        torch.manual_seed(SEEDS['general_sentinel'])
        net = SentinelNet(build_sentinel(), 'letters')
        self._run(
            'general_sentinel', 'general_sentinel', net, lambda: scores(net.features), letters
        )
        folder = self._folder / 'teachers' / 'general_sentinel'
        export_sentinel(net.model, folder)
        facts = scores(features_of(DINOTeacher(str(folder))))
        data = f'{TRAIN_SCENES} scenes of letters and signs, split train, seed 0'
        self._finish('general_sentinel', folder, facts, data)

    def _run(
        self,
        model: str,
        stage: str,
        net: nn.Module,
        evaluate: Callable[[], dict[str, float]],
        pool: Scenes | None = None,
    ) -> None:
        scenes = self._pool if pool is None else pool
        scores = train_stage(
            self._folder / stage,
            net,
            PLANS[stage],
            TRAIN_SCENES,
            SEEDS[model],
            lambda indices: net(scenes.take(indices)),
            evaluate,
        )
        path = self._folder / stage / 'scores.json'
        path.write_text(json.dumps(scores, indent=2) + '\n')

    def _finish(
        self,
        model: str,
        folder: Path,
        scores: dict[str, float],
        data: str = f'{TRAIN_SCENES} digit scenes, split train, seed 0',
    ) -> None:
        title, text = TEXTS[model]
        plan = PLANS[model]
        facts = {
            'data': data,
            'test data': f'{TEST_SCENES} digit scenes, split test, seed 0',
            'command': f'`python -m {__package__}.train --models {model}`',
            'seed': SEEDS[model],
            'images': f'{plan.images} in batches of {plan.batch_size}',
        }
        write_card(folder, title, text, facts, scores)
        print(model, json.dumps(scores), flush=True)


def write_card(
    folder: Path, title: str, text: str, facts: Mapping[str, Any], scores: Mapping[str, float]
) -> None:
    """Write the model card, README.md, beside the weights.

    Args:
        folder: Folder of the model.
        title: Name of the model.
        text: Description of the model and its training.
        facts: Data, command, seed and so on.
        scores: Scores of the exported files by name.
    """
    weights = next(folder.glob('*.safetensors'))
    weights.chmod(0o644)  # safetensors writes files for the owner only
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    rows = {
        **facts,
        'weights': f'`{weights.name}`, {weights.stat().st_size / 1e6:.2f} MB',
        'sha256': f'`{digest}`',
    }
    lines = [f'# {title}', '', text, '', '| | |', '| --- | --- |']
    lines += [f'| {name} | {value} |' for name, value in rows.items()]
    lines += ['', '| score on test digits and test photographs | |']
    lines += ['| --- | --- |']
    lines += [f'| {name} | {value:.3f} |' for name, value in scores.items()]
    (folder / 'README.md').write_text('\n'.join(lines) + '\n')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--out', type=Path, default='work_dirs/micro')
    parser.add_argument(
        '--models',
        nargs='+',
        choices=SEEDS,
        default=['grounding_dino', 'clip', 'sentinel', 'general_sentinel'],
        help='which, in this order (default: all)',
    )
    args = parser.parse_args()
    # More threads would change the order of sums, and so the results.
    torch.set_num_threads(1)
    laboratory = Laboratory(args.out)
    for model in args.models:
        getattr(laboratory, model)()


if __name__ == '__main__':
    main()
