"""MMDetection's data: of COCO annotations all that can be used is used, the rest counted.

ADE20K's images have one order everywhere.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Mapping
from operator import itemgetter
from typing import Any

import numpy as np
from mmdet.datasets import ADE20KSegDataset as MMDetADE20KSegDataset
from mmdet.datasets import CocoDataset as MMDetCocoDataset
from mmdet.datasets.transforms import LoadAnnotations
from mmdet.evaluation.metrics import CocoMetric as MMDetCocoMetric
from mmdet.structures.mask import BitmapMasks
from mmengine.logging import print_log
from pycocotools import mask as coco_mask

from kpu_mm.registry import DATASETS, METRICS, TRANSFORMS

from .class_names import find_names
from .encoded_image import DataError


@DATASETS.register_module()
class CocoDataset(MMDetCocoDataset):
    """MMDetection's CocoDataset, which says how many annotations it uses.

    A zero or missing ``area`` is computed from the mask, or from the box
    where there is none. Annotations without a mask are left out where the
    pipeline loads masks. Takes the arguments of MMDetection's dataset.

    Raises:
        DataError: If the file has other classes than ``metainfo``, none of
            the annotations can be used for training, or one has no box or a
            mask of another size than its image.
    """

    def load_data_list(self) -> list[dict[str, Any]]:
        """Read the annotation file and log how much of it is used."""
        # First, as other classes make annotations unusable.
        find_names(self, 'the data')
        self._total = 0
        self._unused: Counter[str] = Counter()
        self._first: dict[str, str] = {}
        self._beyond: list[str] = []
        self._strays: list[int] | None = None
        # MMEngine copies all of metainfo at each look.
        self._names = self.metainfo['classes']
        self._per_label: Counter[int] = Counter()
        self._needs_masks = not self.test_mode and any(
            getattr(transform, 'with_mask', False) for transform in self.pipeline.transforms
        )
        data_list: list[dict[str, Any]] = super().load_data_list()
        self._report()
        return data_list

    def parse_data_info(self, raw_data_info: dict[str, Any]) -> dict[str, Any]:
        """Drop what cannot be used before MMDetection's own parsing.

        Args:
            raw_data_info: The image and its annotations, as in the file.

        Returns:
            What MMDetection's pipelines take.
        """
        image = raw_data_info['raw_img_info']
        known = set(self.cat_ids)
        if self._strays is None:
            # Once, while MMDetection holds the whole file.
            annotations, images = self.coco.anns.values(), self.coco.imgs
            self._strays = [a['id'] for a in annotations if a['image_id'] not in images]
        usable = []
        for annotation in raw_data_info['raw_ann_info']:
            _check_annotation(annotation, image, self.ann_file)
            reason = _why_unusable(annotation, image, known, self._needs_masks)
            if reason is None:
                fill_area(annotation, image)
                if _reaches_beyond(annotation['bbox'], image):
                    self._beyond.append(image['file_name'])
                usable.append(annotation)
                self._per_label[self.cat2label[annotation['category_id']]] += 1
            else:
                self._unused[reason] += 1
                self._first.setdefault(reason, image['file_name'])
                # Crowd regions stay: losses and metrics know them.
                if reason == _CROWD:
                    fill_area(annotation, image)
                    usable.append(annotation)
        self._total += len(raw_data_info['raw_ann_info'])
        parsed: dict[str, Any] = super().parse_data_info(
            dict(raw_img_info=image, raw_ann_info=usable)
        )
        return parsed

    def _report(self) -> None:
        if self._strays:
            self._total += len(self._strays)
            self._unused[_STRAY] = len(self._strays)
            self._first[_STRAY] = f'annotation {self._strays[0]}'
        used = self._total - sum(self._unused.values())
        reasons = ', '.join(
            f'{count:,} {reason} (first in {self._first[reason]})'
            for reason, count in self._unused.most_common()
        )
        text = f'{used:,} of {self._total:,} annotations of {self.ann_file} are usable'
        text += f'; not usable: {reasons}.' if reasons else '.'
        # Test files without labels, such as COCO's test-dev, are in order.
        if not used and not self.test_mode:
            raise DataError(
                f'{text} Training needs some: correct the file, or the classes in metainfo.'
            )
        print_log(text, logger='current')
        if len(self._beyond) > _MAX_BEYOND * used:
            print_log(
                f'{len(self._beyond):,} boxes of {self.ann_file} reach beyond their image (first '
                f'in {self._beyond[0]}): bbox must be [x, y, width, height] in pixels.',
                logger='current',
                level=logging.WARNING,
            )
        empty = [name for i, name in enumerate(self._names) if not self._per_label[i]]
        if empty and not self.test_mode:
            print_log(
                f'{self.ann_file} has no usable annotation of {len(empty)} of '
                f'{len(self._names)} classes, which will not be learnt: '
                f'{", ".join(empty[:10])}{", ..." if len(empty) > 10 else ""}.',
                logger='current',
                level=logging.WARNING,
            )


@DATASETS.register_module()
class ADE20KSegDataset(MMDetADE20KSegDataset):
    """MMDetection's ADE20KSegDataset with its images in the order of their names.

    MMDetection's have that of the file system, so that a number may mean
    another image on another machine of the same run. Takes its arguments.
    """

    def load_data_list(self) -> list[dict[str, Any]]:
        """List the images with their label maps."""
        return sorted(super().load_data_list(), key=itemgetter('img_path'))


@TRANSFORMS.register_module()
class LoadInstances(LoadAnnotations):
    """MMDetection's LoadAnnotations, which decodes run-length masks always.

    With ``poly2mask=False`` MMDetection ignores each object whose mask is
    run-length encoded. Here all masks of such an image become bitmaps; those
    of other images stay polygons. Takes the arguments of MMDetection's
    transform.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._as_bitmaps = LoadAnnotations(
            with_bbox=False, with_label=False, with_mask=True, poly2mask=True
        )

    def _load_masks(self, results: dict[str, Any]) -> None:
        if any(isinstance(item['mask'], dict) for item in results['instances']):
            self._as_bitmaps._load_masks(results)
            masks: BitmapMasks = results['gt_masks']
            # pycocotools' arrays are in the order of Fortran
            masks.masks = np.ascontiguousarray(masks.masks)
        else:
            super()._load_masks(results)


@METRICS.register_module()
class CocoMetric(MMDetCocoMetric):
    """MMDetection's CocoMetric for files without ``area`` or ``iscrowd``.

    Annotations of images that the file does not list count nowhere. Takes the
    arguments of MMDetection's metric.

    Raises:
        DataError: If masks are to be compared and an annotation has none.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self._coco_api is None:
            return
        for annotation in self._coco_api.anns.values():
            image = self._coco_api.imgs.get(annotation['image_id'])
            if image is None:
                continue
            fill_area(annotation, image)
            annotation.setdefault('iscrowd', 0)
            if 'segm' in self.metrics and not annotation.get('segmentation'):
                raise DataError(
                    f'annotation {annotation["id"]} of image {image["file_name"]} has no mask, '
                    "which the metric 'segm' needs; add it, or set metric='bbox'."
                )


_CROWD = 'crowd regions'
_STRAY = 'of images that the file does not list'
# A larger share of boxes that reach beyond their image is said: boxes of two
# corners do, while some pixels too many at the border are usual.
_MAX_BEYOND = 0.1


def fill_area(annotation: dict[str, Any], image: Mapping[str, Any]) -> None:
    """Compute the area of an object where the file has none, in place.

    Args:
        annotation: One annotation of a COCO file.
        image: Its image, with ``height`` and ``width``.
    """
    if (annotation.get('area') or 0) > 0:
        return
    area = 0.0
    if mask := _valid_mask(annotation.get('segmentation')):
        size = (image['height'], image['width'])
        if isinstance(mask, list):
            mask = coco_mask.merge(coco_mask.frPyObjects(mask, *size))
        elif isinstance(mask['counts'], list):
            mask = coco_mask.frPyObjects(mask, *size)
        area = float(coco_mask.area(mask))
    # a mask thinner than a pixel has no area of its own
    annotation['area'] = area or float(annotation['bbox'][2] * annotation['bbox'][3])


def _check_annotation(
    annotation: Mapping[str, Any], image: Mapping[str, Any], ann_file: str
) -> None:
    """Raise if a box is none, or a mask is of another size than its image."""
    box = annotation.get('bbox')
    if not (isinstance(box, list) and len(box) == 4 and all(map(_is_number, box))):
        name = _name(annotation, image, ann_file)
        raise DataError(
            f'{name} has bbox {box!r}, which must be [x, y, width, height]; correct it.'
        )
    area = annotation.get('area', 0)
    if area is not None and not _is_number(area):
        name = _name(annotation, image, ann_file)
        raise DataError(f'{name} has area {area!r}, which must be a number; correct it.')
    mask = annotation.get('segmentation')
    if not isinstance(mask, dict):
        return
    size = [image['height'], image['width']]
    if mask.get('size') not in (None, size):
        name = _name(annotation, image, ann_file)
        raise DataError(
            f'{name} has a mask of height and width {mask["size"]}, but the file gives the image '
            f'{size}; correct one of them.'
        )


def _is_number(value: Any) -> bool:
    return type(value) in (int, float)


def _name(annotation: Mapping[str, Any], image: Mapping[str, Any], ann_file: str) -> str:
    return f'annotation {annotation.get("id")} of image {image["file_name"]} in {ann_file}'


def _reaches_beyond(box: list[float], image: Mapping[str, Any]) -> bool:
    """Whether a box ends more than a pixel outside of its image."""
    x, y, width, height = box
    return bool(x + width > image['width'] + 1 or y + height > image['height'] + 1)


def _why_unusable(
    annotation: Mapping[str, Any], image: Mapping[str, Any], known: set[int], needs_mask: bool
) -> str | None:
    """Why training cannot use an annotation; None if it can."""
    x, y, width, height = annotation['bbox']
    inside_x = min(x + width, image['width']) - max(x, 0)
    inside_y = min(y + height, image['height']) - max(y, 0)
    if annotation['category_id'] not in known:
        return 'of other classes'
    if annotation.get('ignore'):
        return "marked 'ignore'"
    if annotation.get('iscrowd'):
        return _CROWD
    if width < 1 or height < 1:
        return 'with a box below one pixel'
    if inside_x <= 0 or inside_y <= 0:
        return 'with a box outside of the image'
    if needs_mask and not annotation.get('segmentation'):
        return 'without a mask'
    if needs_mask and not _valid_mask(annotation['segmentation']):
        return 'with a mask that is neither polygons of three points or more nor run lengths'
    return None


def _valid_mask(mask: Any) -> Any:
    """The polygons that enclose something, or run lengths; None for others."""
    if isinstance(mask, list):
        # An array of numbers, and not of polygons, is a common mistake.
        if not all(isinstance(polygon, list) for polygon in mask):
            return None
        polygons = [p for p in mask if len(p) >= 6 and len(p) % 2 == 0]
        return polygons if polygons and _is_number(polygons[0][0]) else None
    if isinstance(mask, Mapping) and mask.get('size'):
        counts = mask.get('counts')
        if isinstance(counts, str):
            return mask
        # runs of zeros and ones in turn, over all pixels
        if isinstance(counts, list) and sum(counts) == math.prod(mask['size']):
            return mask if sum(counts[1::2]) else None
    return None
