"""Datasets of the toolboxes: built from configs, read in an endless order."""

from __future__ import annotations

import json
from os.path import join
from typing import Any

from torch.utils.data import Dataset

from kpu_mm.registry import DATASETS

from .class_names import find_names, read_categories
from .encoded_image import DataError
from .image_order import SourceMix, seeded, stable_hash


class EndlessDataset(Dataset):
    """Any map-style dataset, shuffled anew in each epoch, without end.

    ``endless[position]`` is a pure function of the seed and the position,
    random transforms included, so that a run resumes exactly by resuming
    its position. What the dataset itself does at random, such as replacing
    a sample that its pipeline turns down, is seeded too.

    Args:
        dataset: A dataset with ``__len__`` and ``__getitem__``.
        seed: Chooses order and transforms. Defaults to 0; the train loop
            sets it.

    Raises:
        ValueError: If the dataset is empty.
    """

    def __init__(self, dataset: Dataset, seed: int = 0) -> None:
        self.dataset = dataset
        self.seed = seed
        length = len(dataset)  # type: ignore[arg-type]
        if not length:
            raise ValueError(
                f'{type(dataset).__name__} has no samples; check its paths and its filter_cfg.'
            )
        self._mix = SourceMix([length])

    @property
    def metainfo(self) -> Any:
        """The dataset's own, if it has one."""
        return self.dataset.metainfo  # type: ignore[attr-defined]

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self._mix)

    def set_seed(self, seed: int) -> None:
        """Choose another order and other random transforms."""
        self.seed = seed

    def __getitem__(self, position: int) -> Any:
        """Load the sample at a position of the endless stream.

        Args:
            position: Any number from 0.
        """
        _, index = self._mix.locate(position, self.seed)
        # Random transforms depend on the position, not on what came before.
        with seeded(stable_hash(self.seed, position)):
            return self.dataset[index]


def build_dataset(config: dict[str, Any]) -> Dataset:
    """Build a dataset of any toolbox.

    A missing file already has a clear error. What the readers of annotation
    files say of a broken one does not even name it, so this does.

    Args:
        config: Config of the dataset.

    Raises:
        DataError: If the dataset itself finds a fault in the data, or its
            ``ann_file`` has other classes than ``metainfo``.
        RuntimeError: If its ``ann_file`` cannot be understood.
    """
    try:
        dataset: Dataset = DATASETS.build(config)
    except DataError:  # a sentence already
        raise
    except (ValueError, KeyError, TypeError, AssertionError) as error:
        # Only some wrappers of datasets, such as RepeatDataset, are that deep.
        while isinstance(config.get('dataset'), dict):
            config = config['dataset']
        if not config.get('ann_file'):
            raise
        path = join(config.get('data_root') or '', config['ann_file'])
        reason = _image_without_size(path)
        if reason is None and read_categories(path):
            # With lazy_init only metainfo is read.
            find_names(DATASETS.build({**config, 'lazy_init': True}), 'the data')
        reason = reason or (f'{type(error).__name__}: ' + ' '.join(str(error).split())[:200])
        raise RuntimeError(
            f"The annotation file '{path}' is broken, or is none that "
            f'{config["type"]} reads ({reason}); copy it again, or correct ann_file.'
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
                        f'image {image.get("id")} has {side} {image.get(side)!r}, which must be a '
                        'number of pixels'
                    )
    # It is another format, or broken in another way.
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass
    return None
