"""Datasets from configs, with one sentence if the annotations are broken."""

from __future__ import annotations

import json
from os.path import join
from typing import Any

from torch.utils.data import Dataset

from ..registry import DATASETS


def build_dataset(config: dict[str, Any]) -> Dataset:
    """Build a dataset of any toolbox.

    A missing file already has a clear error. What the readers of annotation
    files say of a broken one does not even name it, so this does.

    Args:
        config: Config of the dataset.

    Raises:
        RuntimeError: If its ``ann_file`` cannot be understood.
    """
    try:
        dataset: Dataset = DATASETS.build(config)
    except (ValueError, KeyError, TypeError, AssertionError) as error:
        if not config.get('ann_file'):
            raise
        path = join(config.get('data_root') or '', config['ann_file'])
        reason = _image_without_size(path) or (
            f'{type(error).__name__}: ' + ' '.join(str(error).split())[:200]
        )
        raise RuntimeError(
            f"The annotation file '{path}' is broken, or is none that "
            f'{config["type"]} reads ({reason}); copy it again, or correct '
            'ann_file.'
        ) from error
    return dataset


def _image_without_size(path: str) -> str | None:
    """The first image of a COCO file whose height or width is no number."""
    try:
        with open(path, encoding='utf-8') as file:
            images = json.load(file)['images']
        for image in images:
            for side in ('height', 'width'):
                if not isinstance(image.get(side), int):
                    return (
                        f'image {image.get("id")} has {side} '
                        f'{image.get(side)!r}, which must be a number of '
                        'pixels'
                    )
    # It is another format, or broken in another way.
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass
    return None
