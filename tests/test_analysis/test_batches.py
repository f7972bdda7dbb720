from argparse import Namespace

import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image

from kpu_mm.analysis.batches import (
    first_batches,
    labelled_images,
    sized_batches,
    without_augmentation,
)
from kpu_mm.datasets import DataError, MultiStreamLoader
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


def sized(folder, streams=None, sizes=(40,)):
    images = None if folder is None else str(folder)
    args = Namespace(images=images, num_images=3, seed=0, device=None)
    cfg = Config(dict(train_dataloader=streams or {}))
    found = sized_batches(args, cfg, list(sizes))
    return [list(batches) for batches in found.values()]


def test_images_without_augmentation(folder, tmp_path):
    crops = stream(tmp_path / 'elsewhere')
    crops['dataset']['pipeline'][0] = dict(type='kpu_mm.DecodeRandomResizedCrop', size=32)
    crops['dataset'].update(weights=[1.0])
    cfg = Config(dict(train_dataloader=dict(whole=stream(folder), crops=crops)))
    without_augmentation(cfg, str(folder))
    for name, config in cfg.train_dataloader.items():
        # each seed has the twelve images in an order of its own
        found = [
            {
                bytes(i.numpy())
                for b in first_batches(name, dict(config, batch_size=1), 12, seed)
                for i in b.images
            }
            for seed in (0, 1)
        ]
        assert len(found[0]) == 12 and found[0] == found[1]
    image = Image.open(sorted(folder.iterdir())[-1])
    left = (image.width - image.height) // 2
    square = image.crop((left, 0, left + image.height, image.height)).resize((32, 32), 3)
    distances = [
        np.abs(
            np.frombuffer(i, np.uint8).reshape(3, 32, 32)
            - np.moveaxis(np.array(square, float), 2, 0)
        ).mean()
        for i in found[0]
    ]
    assert min(distances) < 3
    cfg.train_dataloader.crops.dataset = dict(type='MixedResolution', dataset=dict())
    with pytest.raises(ValueError, match="stream 'crops' is no kpu_mm"):
        without_augmentation(cfg, str(folder))


def test_whole_images_at_any_size(folder):
    small, large = sized(folder, sizes=(40, 160))
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
    (ours,), (given,) = sized(None, streams), sized(folder)
    for a, b in zip(ours, given, strict=True):
        assert torch.equal(a.images, b.images)
    for none in ({}, dict(a=dict(dataset=dict(type='CocoDataset')))):
        with pytest.raises(ValueError, match='--images'):
            sized(None, none)


@pytest.fixture
def class_folders(tmp_path):
    """Three red and five blue images."""
    for name, count, channel in (('red', 3, 0), ('blue', 5, 2)):
        (tmp_path / name).mkdir()
        for i in range(count):
            pixels = np.zeros((64, 96, 3), np.uint8)
            pixels[..., channel] = 200 + i
            Image.fromarray(pixels).save(tmp_path / name / f'{i}.png')
    return tmp_path


def test_images_and_labels(class_folders):
    # hidden folders are no classes
    (class_folders / '.ipynb_checkpoints').mkdir()
    Image.new('RGB', (60, 60)).save(class_folders / '.ipynb_checkpoints' / '0.png')
    batches, classes = labelled_images(class_folders, 56, 100)
    images, labels = next(iter(batches))
    assert classes == ['blue', 'red']
    assert labels.tolist() == [0] * 5 + [1] * 3
    assert images.shape == (8, 3, 56, 56) and images.dtype == torch.uint8
    assert (images[5, 0] == 200).all() and (images[5, 1:] == 0).all()


def test_a_limit_takes_from_all_classes(class_folders):
    batches, _ = labelled_images(class_folders, 56, limit=4)
    assert torch.cat([labels for _, labels in batches]).tolist() == [0, 0, 0, 1]
    with pytest.raises(FileNotFoundError, match='nothing'):
        labelled_images(class_folders / 'nothing', 56, 4)


def test_the_one_reader_reads_them(tmp_path):
    (tmp_path / 'a').mkdir()
    deep = Image.fromarray(np.full((64, 64), 200 * 256 + 9, np.uint16))
    deep.save(tmp_path / 'a' / 'deep.png')
    ((images, _),) = labelled_images(tmp_path, 56, 1)[0]
    assert (images == 200).all()
    (tmp_path / 'a' / 'deep.png').write_bytes(b'no image')
    with pytest.raises(DataError, match=r"deep\.png' is not an image"):
        next(iter(labelled_images(tmp_path, 56, 1)[0]))


def test_same_pixels_as_the_configs_pipeline(tmp_path):
    from mmpretrain.datasets import CenterCrop, ResizeEdge

    rng = np.random.default_rng(0)
    (tmp_path / 'a').mkdir()
    pixels = rng.integers(0, 256, (70, 90, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / 'a' / '0.png')
    results = dict(img=pixels[..., ::-1], img_shape=(70, 90))
    resize = ResizeEdge(64, edge='short', backend='pillow', interpolation='bicubic')
    results = CenterCrop(56).transform(resize.transform(results))
    ((images, _),) = labelled_images(tmp_path, 56, 1)[0]
    expected = results['img'][..., ::-1]
    difference = images[0].movedim(0, -1).numpy().astype(int) - expected
    assert np.abs(difference).max() <= 1
