"""MMPretrain's datasets of one folder for each class, without hidden ones."""

from __future__ import annotations

import logging
from typing import Any

from mmengine.logging import print_log
from mmpretrain.datasets import CustomDataset as _CustomDataset
from mmpretrain.datasets import ImageNet as _ImageNet
from mmpretrain.datasets.custom import find_folders, get_samples

from kpu_mm.registry import DATASETS


class _VisibleFolders:
    """Mixin of datasets whose classes are folders.

    A folder such as ``.ipynb_checkpoints`` is no class. The folders go into
    the dataset's ``metainfo``, and with it into checkpoints, so that a test
    notices when one is missing.
    """

    img_prefix: str
    with_label: bool
    is_valid_file: Any
    _metainfo: dict[str, Any]

    def _find_samples(self) -> Any:
        if not self.with_label:
            return super()._find_samples()  # type: ignore[misc]
        folders = [name for name in find_folders(self.img_prefix)[0] if not name.startswith('.')]
        self.folder_to_idx = {name: i for i, name in enumerate(folders)}
        # ClassNamesHook compares them with those of `metainfo`.
        self._metainfo.setdefault('classes', tuple(folders))
        self._metainfo['folders'] = tuple(folders)
        samples, empty = get_samples(self.img_prefix, self.folder_to_idx, self.is_valid_file)
        if not samples:
            raise ValueError(
                f"'{self.img_prefix}' has no images in folders of classes; correct data_root and "
                'data_prefix.'
            )
        if empty:
            print_log(
                f"'{self.img_prefix}' has no images of {', '.join(sorted(empty))}.",
                'current',
                logging.WARNING,
            )
        return samples


@DATASETS.register_module()
class CustomDataset(_VisibleFolders, _CustomDataset):
    """MMPretrain's CustomDataset; hidden folders are no classes."""


@DATASETS.register_module()
class ImageNet(_VisibleFolders, _ImageNet):
    """MMPretrain's ImageNet; hidden folders are no classes."""
