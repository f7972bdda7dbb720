import pytest
import torch

from kpu_mm.datasets import UnlabeledImages
from kpu_mm.datasets.feature_cache.estimate import (
    bytes_per_image,
    free_bytes,
    readable,
)
from kpu_mm.datasets.feature_cache.writer import write_features

from .conftest import source, teach

PIPELINE = [
    dict(type='kpu_mm.DecodeRandomResizedCrop', size=32),
    dict(type='kpu_mm.PackImage'),
]


@pytest.fixture
def dataset(images):
    return UnlabeledImages(source(images), PIPELINE, views=1)


def test_is_what_files_hold(dataset, plan):
    size = bytes_per_image(dataset, teach, torch.float16)
    # 3 + 3 * 16 * 16 + 3 * 8 * 8 values of two bytes, and what finds them
    assert 0 < size - 2 * (3 + 768 + 192) < 120
    other = plan._replace(
        images=dataset,
        folder=plan.folder.with_name('other'),
        record={**plan.record, 'images_per_chunk': 12, 'views': 1},
    )
    write_features(other, teach)
    (path,) = other.folder.rglob('*.safetensors')
    # one of the twelve is corrupt; the header comes on top
    assert path.stat().st_size == pytest.approx(11 * size, abs=700)


def test_corrupt_images_do_not_count(dataset, images):
    expected = bytes_per_image(dataset, teach, torch.float16)
    (images / 'n0' / '00.JPEG').write_bytes(b'')
    assert bytes_per_image(dataset, teach, torch.float16) == expected
    for path in images.rglob('*.JPEG'):
        path.write_bytes(b'')
    with pytest.raises(ValueError, match='none of 8 images'):
        bytes_per_image(dataset, teach, torch.float16)


def test_free_space_of_folders_to_come(tmp_path):
    there = free_bytes(tmp_path)
    to_come = free_bytes(tmp_path / 'a' / 'b')
    assert there > 0 and to_come == pytest.approx(there, rel=0.1)


@pytest.mark.parametrize(
    'size, text',
    [(0, '0 B'), (999, '999 B'), (1234, '1.23 kB'), (5.6e13, '56 TB')],
)
def test_readable(size, text):
    assert readable(size) == text
