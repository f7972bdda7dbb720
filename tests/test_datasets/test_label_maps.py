import io
from types import SimpleNamespace

import numpy as np
import pytest
from mmdet.datasets.transforms import LoadAnnotations
from PIL import Image

from kpu_mm.datasets import (
    CheckLabelMap,
    DataError,
    EndlessDataset,
    build_dataset,
    check_label_maps,
)


def build(folder, labels, image_size=(20, 30), zero=False):
    for name, pixels in dict(
        images=np.zeros((*image_size, 3), np.uint8), labels=np.asarray(labels, np.uint8)
    ).items():
        (folder / name).mkdir()
        Image.fromarray(pixels).save(folder / name / 'a.png')
    return build_dataset(
        dict(
            type='BaseSegDataset',
            _scope_='mmseg',
            data_root=str(folder),
            data_prefix=dict(img_path='images', seg_map_path='labels'),
            img_suffix='.png',
            seg_map_suffix='.png',
            reduce_zero_label=zero,
            metainfo=dict(classes=('cat', 'dog')),
            pipeline=[
                dict(type='LoadImageFromFile'),
                dict(type='Resize', scale=(8, 8)),
                dict(type='kpu_mm.CheckLabelMap'),
                dict(type='LoadAnnotations'),
                dict(type='PackSegInputs'),
            ],
        )
    )


def test_the_size_of_the_loaded_image_counts(tmp_path):
    data = build(tmp_path, np.zeros((20, 30)))
    assert data[0]['inputs'].shape == (3, 8, 8)


@pytest.mark.parametrize('size', [(1, 30), (20, 1), (1, 1)])
def test_sides_of_one_pixel_are_named(tmp_path, size):
    data = build(tmp_path, np.ones(size), image_size=size)
    with pytest.raises(DataError, match=r'labels/a\.png has a side of one pixel'):
        data[0]


@pytest.mark.parametrize(
    ('size', 'hint'), [((30, 20), r'turned by its EXIF'), ((10, 15), r'a\.png is 10 x 15;')]
)
def test_a_label_map_of_another_size_is_named(tmp_path, size, hint):
    data = build(tmp_path, np.zeros(size))
    with pytest.raises(ValueError, match=r'images/a\.png is 20 x 30 .*labels/a\.png') as error:
        data[0]
    error.match(hint)


def encoded(pixels, mode=None, kind='PNG'):
    file = io.BytesIO()
    image = Image.fromarray(np.asarray(pixels))
    (image.convert(mode) if mode else image).save(file, kind)
    return file.getvalue()


LABELS = np.random.default_rng(1).integers(0, 150, (20, 30), np.uint8)


@pytest.mark.parametrize(
    'data',
    [
        encoded(LABELS),
        encoded(LABELS) + b'more',
        encoded(LABELS.astype(np.uint16)),
        encoded(LABELS.astype(np.int32), kind='TIFF'),
        encoded(LABELS.astype(np.float32), kind='TIFF'),
    ],
    ids=['8-bit', 'trailing bytes', '16-bit', '32-bit', 'float'],
)
def test_labels_of_other_types_are_the_same(tmp_path, data):
    dataset = build(tmp_path, LABELS)
    (tmp_path / 'labels' / 'a.png').write_bytes(data)
    results = dataset.get_data_info(0)
    for transform in dataset.pipeline.transforms[:-1]:
        results = transform(results)
    assert np.array_equal(results['gt_seg_map'], LABELS)


@pytest.mark.parametrize(
    ('data', 'words'),
    [
        (encoded(LABELS.astype(np.uint16) * 3), r'values from 0 to \d{3}, but labels must be int'),
        (encoded(-LABELS.astype(np.int32), kind='TIFF'), r'values from -\d+ to 0'),
        (encoded(LABELS / np.float32(2), kind='TIFF'), 'labels must be integers'),
        (encoded(LABELS, 'RGB'), r'has colours \(mode RGB\).*convert colours to labels'),
        (encoded(LABELS, 'RGBA'), 'has colours'),
        (encoded(LABELS, 'LA'), 'has colours'),
        (encoded(LABELS, kind='JPEG'), 'is a JPEG, which changes values'),
        (encoded(LABELS)[:300], r'cannot be read \(image file is truncated'),
        (b'<html>', 'is no image'),
        (b'', 'is no image'),
        (None, r'cannot be read \(No such file'),
    ],
)
def test_files_that_hold_no_labels_are_named(tmp_path, data, words):
    dataset = build(tmp_path, LABELS)
    path = tmp_path / 'labels' / 'a.png'
    path.unlink()
    if data is not None:
        path.write_bytes(data)
    for load in (lambda: dataset[0], lambda: check_label_maps(dataset)):
        with pytest.raises(DataError, match=rf'The label map .*labels/a\.png .*{words}'):
            load()


@pytest.mark.parametrize(('values', 'zero'), [((255, 255), False), ((0, 255), True)])
def test_labels_that_never_count(tmp_path, values, zero):
    labels = np.random.default_rng(0).choice(values, (20, 30))
    data = EndlessDataset(build(tmp_path, labels, zero=zero))
    with pytest.raises(ValueError, match=r'no pixel counts in 1 label maps.*labels/a\.png'):
        check_label_maps(data)


@pytest.mark.parametrize(('values', 'zero'), [((0, 255), False), ((1, 255), True)])
def test_labels_that_count(tmp_path, values, zero):
    labels = np.random.default_rng(0).choice(values, (20, 30))
    check_label_maps(EndlessDataset(build(tmp_path, labels, zero=zero)))


class Detections(list):
    """Samples with a label map, as MMDetection's datasets give them."""

    def __init__(self, folder, labels, loader, **sample):
        Image.fromarray(np.asarray(labels, np.uint8)).save(folder / 'a.png')
        super().__init__([dict(sample, seg_map_path=str(folder / 'a.png'))])
        self.get_data_info = self.__getitem__
        self.pipeline = SimpleNamespace(transforms=[loader])


def test_masks_of_instances_need_an_image(tmp_path):
    loader = LoadAnnotations(with_mask=True, with_seg=True)
    instance = dict(bbox=[0, 0, 9, 9], bbox_label=0, mask=[[0, 0, 9, 0, 9, 9]], ignore_flag=0)
    check_label_maps(Detections(tmp_path, LABELS, loader, instances=[instance]))


def test_panoptic_files_are_no_label_maps(tmp_path):
    segments = np.zeros((20, 30, 3))
    check_label_maps(
        Detections(tmp_path, segments, LoadAnnotations(with_seg=True), segments_info=[])
    )


def test_the_first_class_is_the_loader_s(tmp_path):
    for zero, first in ((True, 1), (False, 0)):
        loader = LoadAnnotations(with_bbox=False, with_seg=True, reduce_zero_label=zero)
        data = Detections(tmp_path, np.full((20, 30), 255 - 255 * zero), loader)
        with pytest.raises(ValueError, match=f'; write classes as {first}, {first + 1}, '):
            check_label_maps(data)


def test_inferencers_load_no_labels():
    results = dict(ori_shape=(20, 30))
    assert CheckLabelMap()(dict(results)) == results
