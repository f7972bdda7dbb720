import numpy as np
import pytest
import torch
from PIL import Image

from kpu_mm.analysis import find_sources, first_batches, whole_images
from kpu_mm.datasets import MultiStreamLoader
from tests.runs import write_images


@pytest.fixture
def folder(tmp_path):
    write_images(tmp_path / 'images')
    return tmp_path / 'images'


def stream(folder):
    return dict(
        batch_size=4,
        dataset=dict(
            type='kpu_mm.UnlabeledImages',
            sources=dict(type='kpu_mm.FolderSource', root=str(folder)),
            pipeline=[
                dict(type='kpu_mm.DecodeResize', shortest=40, longest=60),
                dict(type='mmcv.RandomFlip', prob=0.5),
                dict(type='kpu_mm.PackImage'),
            ],
        ),
    )


def test_the_first_of_training(folder):
    batches = list(first_batches('clip', stream(folder), 10, seed=3))
    assert [len(b.images) for b in batches] == [4, 4, 2]
    training = iter(MultiStreamLoader(dict(clip=stream(folder)), seed=3))
    for ours in batches:
        theirs = next(training)['streams']['clip']
        n = len(ours.images)
        assert torch.equal(ours.images, theirs['images'][:n])
        if theirs['mask'] is not None:
            assert torch.equal(ours.mask, theirs['mask'][:n])
    other = next(first_batches('clip', stream(folder), 4, seed=4))
    assert other.images.shape != batches[0].images.shape or not torch.equal(
        other.images, batches[0].images
    )


def test_whole_images_at_any_size(folder):
    sources = find_sources({}, str(folder))
    small, large = (
        list(first_batches('images', whole_images(sources, size), 3))
        for size in (40, 160)
    )
    for a, b in zip(small, large, strict=True):
        assert min(a.images.shape[-2:]) == 40 and a.mask is None
        assert min(b.images.shape[-2:]) == 160
        # the same image: twice enlarged it is four times as large
        back = np.asarray(
            Image.fromarray(b.images[0].movedim(0, -1).numpy()).resize(
                (a.images.shape[-1], 40), Image.Resampling.BOX
            )
        ).astype(float)
        difference = a.images[0].movedim(0, -1).numpy() - back
        assert np.abs(difference).mean() < 10


def test_sources_of_the_config(folder):
    streams = dict(a=stream(folder), b=dict())
    assert find_sources(streams) == streams['a']['dataset']['sources']
    assert find_sources(streams, 'x') == dict(
        type='kpu_mm.FolderSource', root='x'
    )
    for none in ({}, dict(a=dict(dataset=dict(type='CocoDataset')))):
        with pytest.raises(ValueError, match='--images'):
            find_sources(none)
