"""Digit scenes as files, in the forms that the toolboxes' datasets read."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from .materials import DIGIT_WORDS, Split
from .scene import Scene, scene

_PARAMETERS = 'scenes.json'


def write_digit_scenes(
    folder: str | Path, split: Split, seed: int, count: int, size: int = 64
) -> Path:
    """Write scenes with the labels of every task.

    The folder gets ``images/*.png``; ``instances.json`` with boxes and masks
    for MMDetection's ``CocoDataset``; ``semantic/*.png``, 0 for background
    and else 1 + digit, for MMSegmentation's ``BaseSegDataset``;
    ``labels.txt`` with the dominant digits for MMPreTrain's
    ``CustomDataset``; and ``captions.json`` in COCO's form. It appears when
    complete; one with the same scenes is left as it is.

    Args:
        folder: Where to.
        split: 'train' or 'test'.
        seed: Series of scenes.
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
        _compare(place, parameters)
        return place
    temporary = place.with_name(f'{place.name}.{os.getpid()}.tmp')
    try:
        for part in ('images', 'semantic'):
            (temporary / part).mkdir(parents=True)
        _write_all(
            temporary,
            [f'{index:06d}.png' for index in range(count)],
            (scene(split, seed, index, size) for index in range(count)),
            size,
        )
        _write_json(temporary / _PARAMETERS, parameters)
        temporary.rename(place)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return place


def run_lengths(mask: np.ndarray) -> list[int]:
    """Code a mask as COCO does: lengths of runs, down the columns.

    Args:
        mask: (H, W) bool.

    Returns:
        Lengths of runs of 0, 1, 0, ... in turn.
    """
    flat = mask.ravel(order='F')
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    runs = np.diff(edges, prepend=0, append=flat.size).tolist()
    return [0, *runs] if flat[0] else runs


def _write_all(
    folder: Path, names: Sequence[str], scenes: Any, size: int
) -> None:
    instances: list[dict[str, Any]] = []
    captions: list[dict[str, Any]] = []
    labels: list[str] = []
    for number, (name, made) in enumerate(zip(names, scenes, strict=True)):
        Image.fromarray(made.image).save(folder / 'images' / name)
        Image.fromarray(made.semantic).save(folder / 'semantic' / name)
        for record in _instances(made, number):
            instances.append({'id': len(instances) + 1, **record})
        captions.append(
            {'id': number, 'image_id': number, 'caption': made.caption}
        )
        labels.append(f'{name} {made.label}\n')
    images = [
        {'id': number, 'file_name': name, 'height': size, 'width': size}
        for number, name in enumerate(names)
    ]
    categories = [
        {'id': digit, 'name': word} for digit, word in enumerate(DIGIT_WORDS)
    ]
    _write_json(
        folder / 'instances.json',
        {
            'images': images,
            'annotations': instances,
            'categories': categories,
        },
    )
    _write_json(
        folder / 'captions.json', {'images': images, 'annotations': captions}
    )
    (folder / 'labels.txt').write_text(''.join(labels))


def _instances(made: Scene, image: int) -> list[dict[str, Any]]:
    """Annotations of a scene without their numbers."""
    return [
        {
            'image_id': image,
            'category_id': int(digit),
            'bbox': [int(v) for v in (x1, y1, x2 - x1, y2 - y1)],
            'area': int(mask.sum()),
            'iscrowd': 0,
            'segmentation': {
                'size': list(mask.shape),
                'counts': run_lengths(mask),
            },
        }
        for digit, (x1, y1, x2, y2), mask in zip(
            made.digits, made.boxes, made.masks, strict=True
        )
    ]


def _compare(folder: Path, parameters: Mapping[str, Any]) -> None:
    path = folder / _PARAMETERS
    found = json.loads(path.read_text()) if path.is_file() else None
    if found != parameters:
        raise ValueError(
            f"'{folder}' holds {found or 'something else'}, not the digit "
            f'scenes {dict(parameters)}; remove it or write elsewhere.'
        )


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content))
