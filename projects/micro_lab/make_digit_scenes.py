"""Write digit scenes with the labels of every task.

    python -m projects.micro_lab.make_digit_scenes data/digit_scenes

The command writes both splits, as the config _base_/digit_scenes.py reads
them. The splits share neither scans of digits nor photographs.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from kpu_mm.utils.command_line import refuse

from .digit_scenes import Scene, scene
from .materials import DIGIT_WORDS, Split

_PARAMETERS = 'scenes.json'


def write_digit_scenes(
    folder: str | Path, split: Split, seed: int, count: int, size: int = 64
) -> Path:
    """Write scenes in the formats that the toolboxes' datasets read.

    ======================  ================================================
    ``images/*.png``        the scenes
    ``instances.json``      boxes and masks for MMDetection's ``CocoDataset``
    ``semantic/*.png``      0 for background and 1 + digit elsewhere, for
                            MMSegmentation's ``BaseSegDataset``
    ``labels.txt``          dominant digits for MMPreTrain's
                            ``CustomDataset``
    ``captions.json``       captions in the format of COCO
    ======================  ================================================

    The folder appears when it is complete. A folder that already holds the
    same scenes is left as it is.

    Args:
        folder: The folder to write.
        split: 'train' or 'test'.
        seed: Seed of the series of scenes.
        count: Number of scenes.
        size: Height and width in pixels. Defaults to 64.

    Returns:
        The folder.

    Raises:
        ValueError: If the folder holds something else.
    """
    place = Path(folder)
    parameters = dict(split=split, seed=seed, count=count, size=size)
    if place.exists():
        path = place / _PARAMETERS
        found = json.loads(path.read_text()) if path.is_file() else None
        if found != parameters:
            raise ValueError(
                f"'{place}' holds {found or 'something else'}, not the digit "
                f'scenes {parameters}; remove it or write elsewhere.'
            )
        return place
    temporary = place.with_name(f'{place.name}.{os.getpid()}.tmp')
    try:
        for part in ('images', 'semantic'):
            (temporary / part).mkdir(parents=True)
        _write_all(temporary, (scene(split, seed, index, size) for index in range(count)))
        _write_json(temporary / _PARAMETERS, parameters)
        temporary.rename(place)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return place


def run_lengths(mask: np.ndarray) -> list[int]:
    """Encode a mask as COCO does: run lengths in column order.

    Args:
        mask: (H, W) bool.

    Returns:
        Lengths of the runs of 0 and 1 in turn; the first run is of 0.
    """
    flat = mask.ravel(order='F')  # (H, W) -> (W * H,)
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    runs = np.diff(edges, prepend=0, append=flat.size).tolist()
    return [0, *runs] if flat[0] else runs


def _write_all(folder: Path, scenes: Iterable[Scene]) -> None:
    images: list[dict[str, Any]] = []
    instances: list[dict[str, Any]] = []
    captions: list[dict[str, Any]] = []
    labels: list[str] = []
    for number, made in enumerate(scenes):
        name = f'{number:06d}.png'
        Image.fromarray(made.image).save(folder / 'images' / name)
        Image.fromarray(made.semantic).save(folder / 'semantic' / name)
        height, width = made.semantic.shape
        images.append(dict(id=number, file_name=name, height=height, width=width))
        for annotation in _instances(made, number):
            # COCO counts annotations from 1.
            instances.append(dict(id=len(instances) + 1, **annotation))
        captions.append(dict(id=number, image_id=number, caption=made.caption))
        labels.append(f'{name} {made.label}\n')
    categories = [dict(id=i, name=word) for i, word in enumerate(DIGIT_WORDS)]
    _write_json(
        folder / 'instances.json', dict(images=images, annotations=instances, categories=categories)
    )
    _write_json(folder / 'captions.json', dict(images=images, annotations=captions))
    (folder / 'labels.txt').write_text(''.join(labels))


def _instances(made: Scene, image: int) -> list[dict[str, Any]]:
    """COCO annotations of a scene without their ids."""
    return [
        dict(
            image_id=image,
            category_id=int(digit),
            bbox=[int(v) for v in (x1, y1, x2 - x1, y2 - y1)],
            area=int(mask.sum()),
            iscrowd=0,
            segmentation=dict(size=list(mask.shape), counts=run_lengths(mask)),
        )
        for digit, (x1, y1, x2, y2), mask in zip(made.digits, made.boxes, made.masks, strict=True)
    ]


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('folder', type=Path, help='gets train and test')
    parser.add_argument('--train', type=int, default=8000, help='scenes')
    parser.add_argument('--test', type=int, default=2000, help='scenes')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--size', type=int, default=64, help='pixels')
    args = parser.parse_args()
    counts: dict[Split, int] = dict(train=args.train, test=args.test)
    for split, count in counts.items():
        try:
            place = write_digit_scenes(args.folder / split, split, args.seed, count, args.size)
        except (ImportError, ValueError) as error:
            refuse(str(error))
        print(f'{count} scenes in {place}')


if __name__ == '__main__':
    main()
