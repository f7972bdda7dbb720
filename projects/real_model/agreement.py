"""Distil EfficientNet-Lite0 as released, without labels, and count agreement.

A small random ViT learns the model's features on a folder of photographs. Its
summary then goes through its projector into the model's own classifier. On
photographs that were in no training the command counts how often both name
the same class, for the student, the untrained student, and whoever always
names the most frequent class. It fails if the student is not clearly better.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from math import sqrt
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from rich.console import Console
from rich.table import Table
from torch import Tensor

from kpu_mm.analysis.distilled import all_models, load_distiller
from kpu_mm.models.kpu_distiller import KPUDistiller
from kpu_mm.registry import MODELS
from kpu_mm.utils.command_line import refusing
from kpu_mm.weights.state_dict import load_state

from .lite0 import write_weights
from .photographs import PARTS, Photographs, imagenet_photographs, split_photographs, squares

ROOT = Path(__file__).resolve().parents[2]
CONFIG = Path(__file__).resolve().parent / 'configs' / 'lite0.py'
TEACHER = 'lite0'
CLASSES = 1000
# The size that the model was trained at.
OWN_SIZE = 224
# "Clearly" more often: by three standard errors of the share.
_ERRORS = 3
Classify = Callable[[Tensor], Tensor]


def classifiers(distiller: KPUDistiller) -> dict[str, Classify]:
    """What names the class of an image.

    Args:
        distiller: With the teacher 'lite0' and the term 's2t'.

    Returns:
        'teacher' and 'student', each from raw images (B, 3, H, W) to classes
        (B,) by the teacher's own last layer.
    """
    models = all_models(distiller, projected=True)
    teacher: Any = distiller.teachers[TEACHER]
    last_layer = teacher.model.get_classifier()

    def classify(name: str, images: Tensor) -> Tensor:
        classes: Tensor = last_layer(models[name](images, None).summary).argmax(1)
        return classes

    return dict(
        teacher=lambda images: classify(TEACHER, images),
        student=lambda images: classify(f'student as {TEACHER}', images),
    )


@torch.no_grad()
def name_classes(
    models: Mapping[str, Classify], batches: Iterable[Photographs]
) -> dict[str, Tensor]:
    """Name the class of each photograph by each model.

    Args:
        models: Classifiers by name.
        batches: The photographs.

    Returns:
        Classes, (N,), of each model, and 'label' where there are labels.
    """
    found: dict[str, list[Tensor]] = {}
    for images, labels in batches:
        named = {name: classify(images) for name, classify in models.items()}
        if labels is not None:
            named['label'] = labels
        for name, classes in named.items():
            found.setdefault(name, []).append(classes)
    return {name: torch.cat(classes) for name, classes in found.items()}


def shares(named: Mapping[str, Tensor]) -> dict[str, float]:
    """How often each model names the teacher's class, or the label.

    Args:
        named: Classes, (N,), of 'teacher', of others, and 'label' if known.

    Returns:
        'photographs', their number N; 'most frequent', the share of the class
        that the teacher names most often; the share of photographs in which
        each other model agrees with the teacher; with labels each model's
        'top-1 of ...'.
    """
    teacher = named['teacher']
    result = {
        'photographs': float(len(teacher)),
        'most frequent': teacher.bincount().max().item() / len(teacher),
    }
    for name, classes in named.items():
        if name not in ('teacher', 'label'):
            result[name] = (classes == teacher).float().mean().item()
        if name != 'label' and 'label' in named:
            result[f'top-1 of {name}'] = (classes == named['label']).float().mean().item()
    return result


def is_clear(result: Mapping[str, float]) -> bool:
    """Whether the student agrees clearly more often than without training.

    Args:
        result: Of :func:`shares`, with 'student' and 'untrained'.
    """
    share, chance = result['student'], max(result['untrained'], result['most frequent'])
    return share - chance > _ERRORS * sqrt(share * (1 - share) / result['photographs'])


def untrained(config: Config, trained: Path) -> KPUDistiller:
    """The student with the initial weights of the run's seed.

    Args:
        config: Config of the run.
        trained: The run's checkpoint, for the statistics of the teacher's
            features, which are no training of the student.
    """
    torch.manual_seed(config.randomness.seed)
    distiller: KPUDistiller = MODELS.build(config.model)
    statistics = {k: v for k, v in load_state(trained).items() if '.normalizer.' in k}
    distiller.load_state_dict({**distiller.state_dict(), **statistics})
    return distiller.eval()


def train(folder: Path, options: list[str]) -> Path:
    """Train with ``tools/train.py``, in a process of its own.

    Args:
        folder: Where weights and lists are; the run is in its folder 'run'.
        options: More ``--cfg-options``.

    Returns:
        The last checkpoint.
    """
    run = folder / 'run'
    command = [sys.executable, 'tools/train.py', str(CONFIG), '--work-dir', str(run), '--resume']
    if options:
        command += ['--cfg-options', *options]
    env = {'OMP_NUM_THREADS': '1', **os.environ, 'PYTHONPATH': str(ROOT)}
    if code := subprocess.run(command, cwd=ROOT, env=env).returncode:
        sys.exit(code)  # the tool has said why
    return Path((run / 'last_checkpoint').read_text().strip())


def show(results: Mapping[str, Mapping[str, float]]) -> None:
    """Print a table.

    Args:
        results: By title, what :func:`shares` gave.
    """
    table = Table(title="Agreement with EfficientNet-Lite0's class")
    table.add_column('')
    for title in results:
        table.add_column(title, justify='right')
    rows = dict.fromkeys(row for result in results.values() for row in result)
    for row in rows:
        cells = [result.get(row) for result in results.values()]
        digits = 0 if row == 'photographs' else 3
        table.add_row(row, *('' if cell is None else f'{cell:.{digits}f}' for cell in cells))
    Console(width=100).print(table)
    print(f'A class drawn at random agrees in {1 / CLASSES} of the photographs.')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--photos', type=Path, required=True, help='folder of photographs')
    parser.add_argument('--labelled', type=Path, help='such as imagenet/val; never trained on')
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/real'))
    parser.add_argument('--part', choices=PARTS[1:], default='test', help='what is measured')
    parser.add_argument('--limit', type=int, default=5000, help='photographs that are measured')
    parser.add_argument('--cfg-options', nargs='+', default=[], help='for the training')
    args = parser.parse_args()
    folder = args.work_dir.absolute()
    os.environ['KPU_MM_REAL'] = str(folder)
    with refusing():
        write_weights(folder / 'lite0.safetensors')
        counts = split_photographs(args.photos, folder / 'photographs')
        if args.labelled is not None:
            own = imagenet_photographs(args.labelled, OWN_SIZE, args.limit)
    print('Photographs:', counts, flush=True)
    checkpoint = train(folder, args.cfg_options)

    config = Config.fromfile(next((folder / 'run').glob('*.py')))
    models = classifiers(load_distiller(config.model, checkpoint, term='s2t'))
    models['untrained'] = classifiers(untrained(config, checkpoint))['student']
    listing = folder / 'photographs' / f'{args.part}.txt'
    results = {args.part: shares(name_classes(models, squares(listing, config.size, args.limit)))}
    if args.labelled is not None:
        labelled = imagenet_photographs(args.labelled, config.size, args.limit)
        results['labelled'] = shares(name_classes(models, labelled))
        teacher = dict(teacher=models['teacher'])
        results[f'labelled, {OWN_SIZE} px'] = shares(name_classes(teacher, own))
    (folder / 'results.json').write_text(json.dumps(results, indent=2) + '\n')
    show(results)
    if not is_clear(results[args.part]):
        sys.exit('The student does not agree clearly more often than chance and without training.')


if __name__ == '__main__':
    main()
