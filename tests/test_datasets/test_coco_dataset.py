"""COCO files of which a part cannot be used, through MMDetection's pipeline."""

import json

import numpy as np
import pytest
from mmdet.structures.mask import BitmapMasks, PolygonMasks
from PIL import Image
from pycocotools import mask as coco_mask

from kpu_mm.datasets import build_dataset
from kpu_mm.datasets.encoded_image import DataError
from kpu_mm.registry import METRICS

HEIGHT, WIDTH = 24, 32
SQUARE = [[4, 4, 12, 4, 12, 12, 4, 12]]  # 8 x 8 pixels
CLASSES = ('cat', 'dog')


def bitmap():
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[4:12, 4:12] = 1
    return mask


def compressed():
    rle = coco_mask.encode(np.asfortranarray(bitmap()))
    return dict(size=[HEIGHT, WIDTH], counts=rle['counts'].decode())


def uncompressed():
    flat = bitmap().flatten(order='F')
    borders = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff([0, *borders, flat.size])
    return dict(size=[HEIGHT, WIDTH], counts=runs.tolist())


def annotation(number, **changes):
    entry = dict(
        id=number,
        image_id=1,
        category_id=1,
        bbox=[4, 4, 8, 8],
        area=64,
        iscrowd=0,
        segmentation=SQUARE,
    )
    entry.update(changes)
    return {key: value for key, value in entry.items() if value is not None}


def write(folder, annotations):
    image = Image.fromarray(np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    image.save(folder / 'a.png')
    content = dict(
        images=[dict(id=1, file_name='a.png', height=HEIGHT, width=WIDTH)],
        annotations=annotations,
        categories=[dict(id=i, name=name) for i, name in enumerate(CLASSES, start=1)],
    )
    (folder / 'a.json').write_text(json.dumps(content))


def build(folder, annotations, test_mode=False, classes=CLASSES, with_mask=True):
    write(folder, annotations)
    return build_dataset(
        dict(
            type='kpu_mm.CocoDataset',
            _scope_='mmdet',
            data_root=str(folder),
            ann_file='a.json',
            data_prefix=dict(img=''),
            metainfo=dict(classes=classes),
            test_mode=test_mode,
            pipeline=[
                dict(type='LoadImageFromFile'),
                dict(
                    type='kpu_mm.LoadInstances',
                    with_bbox=True,
                    with_mask=with_mask,
                    poly2mask=False,
                ),
                dict(type='PackDetInputs'),
            ],
        )
    )


@pytest.mark.parametrize('others', [[], [SQUARE]])
@pytest.mark.parametrize('mask', [compressed(), uncompressed()])
def test_run_lengths_are_decoded(tmp_path, mask, others):
    masks = [mask, *others]
    data = build(tmp_path, [annotation(i, segmentation=m) for i, m in enumerate(masks, 1)])
    instances = data[0]['data_samples'].gt_instances
    assert isinstance(instances.masks, BitmapMasks)
    assert len(instances) == len(masks)
    for decoded in instances.masks.masks:
        assert (decoded == bitmap()).all()


def test_polygons_stay_polygons(tmp_path):
    instances = build(tmp_path, [annotation(1)])[0]['data_samples'].gt_instances
    assert isinstance(instances.masks, PolygonMasks)


@pytest.mark.parametrize('area', [0, -3, None])
@pytest.mark.parametrize('mask', [compressed(), uncompressed(), SQUARE, None])
def test_an_area_that_is_missing_is_computed(tmp_path, area, mask):
    entry = annotation(1, area=area, segmentation=mask)
    data = build(tmp_path, [entry], with_mask=mask is not None)
    assert len(data[0]['data_samples'].gt_instances) == 1
    metric = METRICS.build(
        dict(type='kpu_mm.CocoMetric', ann_file=str(tmp_path / 'a.json'), metric='bbox')
    )
    assert metric._coco_api.anns[1]['area'] == 64


UNUSABLE = {
    'without a mask': dict(segmentation=[]),
    'with a mask that is neither': dict(segmentation=[[4, 4, 12, 12]]),
    'of three points or more': dict(segmentation=[['4', '4', '12', '4', '12', '12']]),
    'nor run lengths': dict(segmentation=dict(size=[HEIGHT, WIDTH], counts=[5, 6])),
    'polygons of three': dict(segmentation=dict(size=[HEIGHT, WIDTH], counts=[HEIGHT * WIDTH])),
    'crowd regions': dict(iscrowd=1),
    'of other classes': dict(category_id=9),
    "marked 'ignore'": dict(ignore=1),
    'below one pixel': dict(bbox=[4, 4, 0.5, 8]),
    'outside of the image': dict(bbox=[40, 4, 8, 8]),
}


@pytest.mark.parametrize('reason', UNUSABLE)
def test_what_cannot_be_used_is_counted(tmp_path, reason, monkeypatch):
    lines = []
    monkeypatch.setattr(
        'kpu_mm.datasets.coco_dataset.print_log', lambda text, **options: lines.append(text)
    )
    data = build(tmp_path, [annotation(1), annotation(2, **UNUSABLE[reason])])
    used, empty = lines
    assert used.startswith(f'1 of 2 annotations of {tmp_path}/a.json are usable; not usable: 1')
    assert reason in used and 'first in a.png' in used
    assert 'no usable annotation of 1 of 2 classes' in empty and 'dog' in empty
    assert len(data[0]['data_samples'].gt_instances) == 1
    with pytest.raises(DataError, match=r'0 of 1 annotations .*a\.json are usable.*a\.png'):
        build(tmp_path, [annotation(2, **UNUSABLE[reason])])


def test_a_missing_mask_matters_only_where_masks_are_loaded(tmp_path):
    data = build(tmp_path, [annotation(1, segmentation=None)], with_mask=False)
    assert len(data[0]['data_samples'].gt_instances) == 1


def test_a_test_file_without_labels_is_in_order(tmp_path):
    assert len(build(tmp_path, [], test_mode=True)) == 1


def test_what_is_wrong_is_named(tmp_path):
    wrong = annotation(7, segmentation=dict(compressed(), size=[WIDTH, HEIGHT]))
    with pytest.raises(DataError, match=r'annotation 7 of image a\.png in .*a\.json has a mask of'):
        build(tmp_path, [wrong])
    with pytest.raises(DataError, match=r'annotation 7 of image a\.png in .*a\.json has bbox None'):
        build(tmp_path, [annotation(7, bbox=None)])
    with pytest.raises(DataError, match=r'annotation 7 of image a\.png in .* has area .64.'):
        build(tmp_path, [annotation(7, area='64')])
    with pytest.raises(DataError, match=r'1 of images that the file does not list \(first in ann'):
        build(tmp_path, [annotation(7, image_id='1')])


def test_boxes_of_two_corners_are_said(tmp_path, monkeypatch):
    lines = []
    monkeypatch.setattr(
        'kpu_mm.datasets.coco_dataset.print_log', lambda text, **options: lines.append(text)
    )
    corners = annotation(1, bbox=[20, 12, 28, 20])
    build(tmp_path, [corners, annotation(2, category_id=2)])
    assert len(lines) == 2
    assert lines[1].startswith(f'1 boxes of {tmp_path}/a.json reach beyond their image')
    build(tmp_path, [corners] + [annotation(i, category_id=2) for i in range(2, 12)])
    assert len(lines) == 3


def test_masks_are_missing_where_masks_are_compared(tmp_path):
    write(tmp_path, [annotation(3, segmentation=[])])
    config = dict(type='kpu_mm.CocoMetric', ann_file=str(tmp_path / 'a.json'))
    METRICS.build(dict(config, metric='bbox'))
    with pytest.raises(DataError, match=r"annotation 3 of image a\.png has no mask.*'segm'"):
        METRICS.build(dict(config, metric=['bbox', 'segm']))


def test_annotations_of_images_that_are_not_listed_count_nowhere(tmp_path):
    write(tmp_path, [annotation(1), annotation(2, image_id=9, segmentation=None)])
    metric = METRICS.build(
        dict(type='kpu_mm.CocoMetric', ann_file=str(tmp_path / 'a.json'), metric=['bbox', 'segm'])
    )
    assert metric._coco_api.get_img_ids() == [1]
