"""Images and labels in the place of a config's own, of the same sizes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

# Of an image, as long as any that detectors are trained with.
WIDTH, HEIGHT = 1333, 800
# Labelled objects of an image; COCO's have 7 in the mean.
OBJECTS = 7


def use_made_up_data(dataloader: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Let a config's dataloader, or one for each stream, read data made in a folder.

    Batch sizes and transforms stay; everything is loaded in this process.
    """
    if 'dataset' not in dataloader:
        given = {name: config for name, config in dataloader.items() if config is not None}
        return {name: use_made_up_data(config, folder) for name, config in given.items()}
    _write(folder)
    # what workers would need
    workers = ('prefetch_factor', 'persistent_workers')
    kept = {k: v for k, v in dataloader.items() if k not in workers}
    return dict(kept, num_workers=0, dataset=_dataset(dataloader['dataset'], folder))


def _dataset(config: dict[str, Any], folder: Path) -> dict[str, Any]:
    """A dataset's config that reads what :func:`_write` wrote."""
    if 'dataset' in config:
        config = dict(config, dataset=_dataset(config['dataset'], folder))
        if 'sizes' in config:  # the largest of those that it changes between
            config['sizes'] = [max(config['sizes'])]
        return config
    if 'sources' in config:
        source = dict(type='kpu_mm.FolderSource', root=str(folder / 'images'))
        return dict(config, sources=[source], weights=None)
    kind = str(config.get('type'))
    if 'Coco' in kind:
        _write_objects(folder)
    if 'Panoptic' in kind:
        prefix = dict(img='images', seg='panoptic')
        return dict(config, data_root=str(folder), ann_file='panoptic.json', data_prefix=prefix)
    if 'Coco' in kind:
        return dict(
            config, data_root=str(folder), ann_file='coco.json', data_prefix=dict(img='images')
        )
    prefix = config.get('data_prefix')
    if isinstance(prefix, dict) and 'seg_map_path' in prefix:
        prefix = dict(img_path='images', seg_map_path='maps')
        return dict(config, data_root=str(folder), data_prefix=prefix)
    return dict(
        type='CustomDataset',
        _scope_='mmpretrain',
        data_root=str(folder / 'classes'),
        pipeline=config['pipeline'],
    )


def _write(folder: Path) -> None:
    """Two images of one shape, each in a class's folder too, and label maps."""
    if (folder / 'images').exists():
        return
    for name in ('images', 'maps', 'classes/one', 'classes/two'):
        (folder / name).mkdir(parents=True)
    ramp = np.linspace(0, 255, WIDTH).astype(np.uint8)
    picture = Image.fromarray(np.broadcast_to(ramp[None, :, None], (HEIGHT, WIDTH, 3)).copy())
    for name in ('one', 'two'):
        picture.save(folder / 'images' / f'{name}.jpg')
        picture.save(folder / 'classes' / name / f'{name}.jpg')
        Image.fromarray(_label_map()).save(folder / 'maps' / f'{name}.png')


def _write_objects(folder: Path) -> None:
    """COCO's files of boxes, masks and segments."""
    if (folder / 'panoptic').exists():
        return
    (folder / 'panoptic').mkdir()
    label_map = _label_map()
    segments = np.stack([label_map, 0 * label_map, 0 * label_map], -1)
    objects, images, annotations = [], [], []
    for i, name in enumerate(('one', 'two')):
        Image.fromarray(segments).save(folder / 'panoptic' / f'{name}.png')
        images.append(dict(id=i, file_name=f'{name}.jpg', width=WIDTH, height=HEIGHT))
        parts = [_segment(k, i) for k in range(OBJECTS)]
        objects += [dict(part, id=len(objects) + k + 1) for k, part in enumerate(parts)]
        annotations.append(dict(image_id=i, file_name=f'{name}.png', segments_info=parts))
    categories = [dict(id=k, name=name, isthing=1) for k, name in _coco_classes()]
    for file, content in (('coco.json', objects), ('panoptic.json', annotations)):
        text = json.dumps(dict(images=images, annotations=content, categories=categories))
        (folder / file).write_text(text)


def _label_map() -> np.ndarray:
    """One object beside the other, numbered from 1; (H, W)."""
    row = (np.arange(WIDTH) * OBJECTS // WIDTH + 1).astype(np.uint8)
    return np.broadcast_to(row, (HEIGHT, WIDTH)).copy()


def _segment(k: int, image: int) -> dict[str, Any]:
    left, right = (-(-WIDTH * side // OBJECTS) for side in (k, k + 1))
    box = [left, 0, right - left, HEIGHT]
    outline = [left, 0, right, 0, right, HEIGHT, left, HEIGHT]
    ids = dict(id=k + 1, image_id=image, category_id=k + 1)
    return dict(ids, bbox=box, area=box[2] * box[3], iscrowd=0, segmentation=[outline])


def _coco_classes() -> list[tuple[int, str]]:
    """Enough of COCO's categories, as its files number them."""
    # mmdet takes a file's categories by their names
    from mmdet.datasets import CocoDataset, CocoPanopticDataset

    names = dict.fromkeys(
        (*CocoDataset.METAINFO['classes'], *CocoPanopticDataset.METAINFO['classes'])
    )
    return list(enumerate(names, start=1))
