"""What the checks before a run cost, beside one epoch of COCO.

Writes an annotation file of COCO's size (118,287 images, 860,001 polygons)
and photographs with label maps, and measures each check of docs/checks.md
that reads files: alone, or as the difference to the library's own class. The
epoch is that of the CPU: reading, decoding and resizing each image once, with
one thread. The parts alternate; the median counts.

    python benchmarks/checks.py [--images 118287] [--rounds 3]
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import mmdet.datasets  # noqa: F401  (registers)
import mmseg.datasets  # noqa: F401
import numpy as np
from mmengine.dataset import Compose
from mmengine.registry import DefaultScope
from PIL import Image
from skimage import data

from kpu_mm.engine.check_hooks import LabelMapHook
from kpu_mm.registry import DATASETS

SHAPE = (480, 640)  # of most COCO images
TRANSFORMS = [
    dict(type='kpu_mm.LoadImageFromFile'),
    dict(type='mmdet.Resize', scale=(1333, 800), keep_ratio=True),
]


def write_coco(path: Path, images: int) -> None:
    """An annotation file with COCO's classes and mean number of polygons."""
    names = DATASETS.get('mmdet.CocoDataset').METAINFO['classes']
    shape = dict(height=SHAPE[0], width=SHAPE[1])
    content = dict(
        images=[dict(id=i, file_name=f'{i:012d}.jpg', **shape) for i in range(images)],
        annotations=[],
        categories=[dict(id=i, name=name) for i, name in enumerate(names, 1)],
    )
    rng = random.Random(0)
    for i in range(images * 860_001 // 118_287):
        x, y, w, h = rng.random() * 500, rng.random() * 350, 100.5, 90.25
        # 20 points, as COCO's polygons have on average
        polygon = [x, y, x + w, y, x + w, y + h, x, y + h] * 5
        content['annotations'].append(
            dict(
                id=i,
                image_id=i % images,
                category_id=1 + i % len(names),
                bbox=[x, y, w, h],
                area=w * h,
                iscrowd=0,
                segmentation=[polygon],
            )
        )
    path.write_text(json.dumps(content))


def write_pairs(folder: Path, count: int) -> None:
    """Photographs with label maps, in ADE20K's layout."""
    photo = Image.fromarray(data.astronaut()).resize(SHAPE[::-1])
    labels = Image.fromarray(np.arange(SHAPE[0] * SHAPE[1], dtype=np.uint8).reshape(SHAPE) % 150)
    for part in ('images', 'labels'):
        (folder / part).mkdir()
    for i in range(count):
        photo.save(folder / 'images' / f'{i}.jpg', quality=90)
        labels.save(folder / 'labels' / f'{i}.png')


def seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--images', type=int, default=118_287)
    parser.add_argument('--rounds', type=int, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_coco(folder / 'coco.json', args.images)
        write_pairs(folder, 50)
        pairs = [folder / 'images' / f'{i}.jpg' for i in range(50)]

        def coco(kind: str) -> None:
            pipeline = [dict(type='mmdet.LoadAnnotations', with_bbox=True, with_mask=True)]
            DATASETS.build(
                dict(
                    type=kind,
                    ann_file=str(folder / 'coco.json'),
                    data_prefix=dict(img=''),
                    pipeline=pipeline,
                )
            )

        def load() -> None:
            for path in pairs:
                load_image(dict(img_path=str(path)))

        label_maps = DATASETS.build(
            dict(
                type='mmseg.BaseSegDataset',
                data_prefix=dict(img_path=f'{folder}/images', seg_map_path=f'{folder}/labels'),
                pipeline=[
                    dict(type='kpu_mm.LoadImageFromFile'),
                    dict(type='mmseg.LoadAnnotations'),
                ],
            )
        )
        runner = SimpleNamespace(train_dataloader=SimpleNamespace(dataset=label_maps))
        parts: dict[str, Callable[[], object]] = {
            "mmdet's CocoDataset": lambda: coco('mmdet.CocoDataset'),
            "kpu_mm's CocoDataset": lambda: coco('kpu_mm.CocoDataset'),
            '50 label maps': lambda: LabelMapHook().before_train(runner),
            'images': load,
        }
        DATASETS.get('kpu_mm.CocoDataset')  # imports
        with DefaultScope.overwrite_default_scope('kpu_mm'):
            load_image = Compose(TRANSFORMS)
            times: dict[str, list[float]] = {part: [] for part in parts}
            for _ in range(args.rounds):
                for part, run in parts.items():
                    times[part].append(seconds(run))
    median = {part: statistics.median(values) for part, values in times.items()}
    epoch = median['images'] / len(pairs) * args.images
    own = median["mmdet's CocoDataset"]
    annotations = median["kpu_mm's CocoDataset"] - own
    for text, cost in (
        ('annotations counted, names compared', annotations),
        ('50 label maps', median['50 label maps']),
    ):
        print(f'{text}: {cost:.2f} s, {cost / epoch:.3%} of an epoch')
    print(f'reading the file itself: {own:.1f} s')
    print(f'epoch of {args.images} images: {epoch:.0f} s')


if __name__ == '__main__':
    main()
