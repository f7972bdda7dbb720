import numpy as np
import pytest
from PIL import Image

from kpu_mm.datasets import CheckLabelMap, EndlessDataset, build_dataset, check_label_maps


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
                dict(type='LoadAnnotations'),
                dict(type='kpu_mm.CheckLabelMap'),
                dict(type='PackSegInputs'),
            ],
        )
    )


def test_the_size_of_the_loaded_image_counts(tmp_path):
    data = build(tmp_path, np.zeros((20, 30)))
    assert data[0]['inputs'].shape == (3, 8, 8)


@pytest.mark.parametrize(
    ('size', 'hint'), [((30, 20), r'turned by its EXIF'), ((10, 15), r'a\.png is 10 x 15;')]
)
def test_a_label_map_of_another_size_is_named(tmp_path, size, hint):
    data = build(tmp_path, np.zeros(size))
    with pytest.raises(ValueError, match=r'images/a\.png is 20 x 30 .*labels/a\.png') as error:
        data[0]
    error.match(hint)


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


def test_inferencers_load_no_labels():
    results = dict(ori_shape=(20, 30))
    assert CheckLabelMap()(dict(results)) == results
