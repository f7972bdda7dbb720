"""A cache of a teacher that is no model: mean colours and half the image."""

from __future__ import annotations

import pytest

from kpu_mm.datasets import UnlabeledImages
from kpu_mm.datasets.feature_cache import write_record
from kpu_mm.datasets.feature_cache.plan import CachePlan
from kpu_mm.structures import Features

PIPELINE = [
    dict(type='kpu_mm.DecodeResize', shortest=24, longest=64),
    dict(type='mmcv.RandomFlip', prob=0.5),
    dict(type='kpu_mm.PackImage'),
]


def source(root):
    return dict(type='kpu_mm.FolderSource', root=str(root))


def teach(images):
    return [
        Features(
            image[None].float().mean((2, 3)),
            (image[None, :, ::2, ::2].float(), image[None, :, ::4, ::4] / 255),
        )
        for image in images
    ]


@pytest.fixture
def plan(images, tmp_path):
    """12 images, 5 a chunk, two views, one image corrupt."""
    (images / 'n1' / '03.JPEG').write_bytes(b'no image')
    dataset = UnlabeledImages(source(images), PIPELINE, views=2)
    record = dict(
        teacher=dict(summary_channels=3),
        **dataset.describe(),
        dtype='float16',
        images_per_chunk=5,
        views=2,
    )
    folder = tmp_path / 'cache'
    return CachePlan(folder, write_record(folder, record), dataset, 2)
