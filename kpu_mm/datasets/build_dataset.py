"""Datasets from configs, with one sentence if the annotations are broken."""

from __future__ import annotations

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
    except (ValueError, KeyError, AssertionError) as error:
        if not config.get('ann_file'):
            raise
        path = join(config.get('data_root') or '', config['ann_file'])
        reason = ' '.join(str(error).split())[:200]
        raise RuntimeError(
            f"The annotation file '{path}' is broken, or is none that "
            f'{config["type"]} reads ({type(error).__name__}: {reason}); copy '
            'it again, or correct ann_file.'
        ) from error
    return dataset
