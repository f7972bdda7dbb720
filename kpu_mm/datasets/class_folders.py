"""MMPretrain's datasets of a folder for each class, or of a list with labels."""

from __future__ import annotations

import logging
from typing import Any

from mmengine.fileio import get_file_backend, list_from_file
from mmengine.logging import print_log
from mmpretrain.datasets import CustomDataset as _CustomDataset
from mmpretrain.datasets import ImageNet as _ImageNet
from mmpretrain.datasets.custom import find_folders, get_samples

from kpu_mm.registry import DATASETS

from .encoded_image import DataError


class _CheckedLabels:
    """Mixin of datasets whose labels are folders, or numbers in a list.

    A folder such as ``.ipynb_checkpoints`` is no class. The folders go into
    the dataset's ``metainfo``, and with it into checkpoints, so that a test
    notices when one is missing.
    """

    ann_file: str
    img_prefix: str
    with_label: bool
    is_valid_file: Any
    _metainfo: dict[str, Any]

    def load_data_list(self) -> list[dict[str, Any]]:
        """Find the images and their labels.

        Raises:
            DataError: If a line of the list is no path and number.
        """
        if not self.ann_file or not self.with_label:
            return super().load_data_list()  # type: ignore[misc]
        join = get_file_backend(self.img_prefix, enable_singleton=True).join_path
        data_list = []
        for number, line in enumerate(list_from_file(self.ann_file), start=1):
            # Windows' editors begin a file with a byte order mark.
            line = line.removeprefix('\ufeff').strip()
            name, _, label = line.replace('\t', ' ').rpartition(' ')
            if name and label.isdecimal():
                data_list.append(
                    dict(img_path=join(self.img_prefix, name.rstrip()), gt_label=int(label))
                )
            elif line:
                raise DataError(
                    f"line {number} of '{self.ann_file}' is {line[:100]!r}, but must be a path, a "
                    'blank, and the number of a class, from 0 on.'
                )
        if not data_list:
            raise DataError(f"'{self.ann_file}' lists no images.")
        return data_list

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
class CustomDataset(_CheckedLabels, _CustomDataset):
    """MMPretrain's CustomDataset; labels are checked, hidden folders are no classes."""


@DATASETS.register_module()
class ImageNet(_CheckedLabels, _ImageNet):
    """MMPretrain's ImageNet; labels are checked, hidden folders are no classes."""
