from __future__ import annotations

from collections import Counter
from itertools import islice

import pytest
import torch
from PIL import Image

from kpu_mm.datasets import MultiStreamLoader, PositionSampler, TokenPacks, UnlabeledImages
from kpu_mm.datasets.token_packs import fit_shape

SHAPES = [(60, 80), (80, 60), (40, 96), (64, 64), (96, 48)]
SIZES = [32, 48, 64]
# of 4, 9 and 16 tokens
COUNTS = {32: 4, 48: 1, 64: 1}


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """60 images; the red channel is the number of the image."""
    root = tmp_path_factory.mktemp('packs')
    for i in range(60):
        h, w = SHAPES[i * 7 % len(SHAPES)]
        Image.new('RGB', (w, h), (4 * i, 0, 0)).save(root / f'{i:03}.png')
    return root


def config(folder, **options):
    return dict(
        type='kpu_mm.TokenPacks',
        sizes=SIZES,
        tokens=16,
        dataset=dict(
            type='kpu_mm.UnlabeledImages',
            sources=dict(type='kpu_mm.FolderSource', root=str(folder)),
            pipeline=[
                dict(type='kpu_mm.DecodeRandomResizedCrop', size=1, scale=(1.0, 1.0)),
                dict(type='kpu_mm.PackImage'),
            ],
        ),
        **options,
    )


def build(folder, **options):
    return TokenPacks(**{k: v for k, v in config(folder, **options).items() if k != 'type'})


def numbers(images):
    return [int(image[0].float().mean().round()) // 4 for image in images]


@pytest.mark.parametrize(
    ('aspect', 'size', 'shape'),
    [
        (1.0, 256, (256, 256)),
        (0.75, 256, (224, 288)),  # 14 x 18 of 256 tokens
        (4 / 3, 256, (288, 224)),
        (20.0, 64, (256, 16)),
        (0.05, 64, (16, 256)),
    ],
)
def test_shapes_keep_the_ratio_and_the_area(aspect, size, shape):
    assert fit_shape(aspect, size, 16) == shape
    assert shape[0] * shape[1] <= size**2


def test_packs_have_equal_tokens_and_no_padding(folder):
    loader = MultiStreamLoader(dict(low=dict(dataset=config(folder), batch_size=1)), seed=1)
    tokens = []
    for batch in islice(loader, 30):
        images, mask = batch['streams']['low']['images'], batch['streams']['low']['mask']
        assert mask is None
        count, _, h, w = images.shape
        assert count == {4: 4}.get(h * w // 256, count)
        tokens.append(count * h * w // 256)
    # one image of 9 tokens leaves room, but not for another
    assert max(tokens) == 16
    assert set(tokens) <= set(range(6, 17))


def test_each_size_is_as_frequent(folder):
    packs = build(folder)
    assert Counter(packs.packs) == dict.fromkeys(COUNTS.items(), 5)
    counts = Counter(len(packs.locate(p)[1]) for p in range(len(packs.packs)))
    assert counts == {4: 5, 1: 10}
    assert not packs.equal_batches
    assert TokenPacks(config(folder)['dataset'], [48, 64], 16).equal_batches


def test_every_image_once_before_any_again(folder):
    packs = build(folder)
    assert len(packs) == 30  # two windows of 15 packs with 30 images
    seen = [n for p in range(30) for n in numbers([s['image'] for s in packs[p]])]
    assert sorted(seen) == list(range(60))
    # the images of a window are those that the plain order has there
    plain = UnlabeledImages(**{k: v for k, v in config(folder)['dataset'].items() if k != 'type'})
    assert set(seen[:30]) == set(numbers([plain[p]['image'] for p in range(30)]))


def test_images_of_a_pack_have_like_shapes(folder):
    """Little is cut off: each pack's shape is near that of its images."""
    packs = build(folder)
    kept = []
    for p in range(30):
        (h, w), places = packs.locate(p)
        for place in places:
            ratio = packs.images.aspect_at(place) / (h / w)
            kept.append(min(ratio, 1 / ratio))
    assert sum(kept) / len(kept) > 0.8
    # squares of the same images
    square = [packs.images.aspect_at(p) for p in range(60)]
    assert sum(kept) / len(kept) > sum(min(a, 1 / a) for a in square) / 60 + 0.1


def test_resumes_exactly_whatever_the_workers(folder):
    def stream(workers):
        loader = dict(dataset=config(folder), batch_size=1, num_workers=workers)
        return MultiStreamLoader(dict(low=loader), seed=3)

    def batches(loader, count):
        return [b['streams']['low']['images'] for b in islice(loader, count)]

    expected = batches(stream(0), 9)
    resumed = stream(1)
    resumed.start_at(5)
    for a, b in zip(batches(resumed, 4), expected[5:], strict=True):
        assert torch.equal(a, b)
    other = stream(0)
    other.set_seed(4)
    assert [numbers(b) for b in batches(other, 9)] != [numbers(b) for b in expected]


def test_processes_share_the_packs(folder):
    packs = build(folder)
    ranks = [iter(PositionSampler(packs, 1, rank=r, world_size=2)) for r in range(2)]
    order = [next(rank) for _ in range(3) for rank in ranks]
    assert order == list(range(6))


def test_a_broken_image_is_replaced(folder, tmp_path):
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / '003.png').write_bytes(b'no image')
    packs = build(tmp_path)
    samples = [sample for p in range(30) for sample in packs[p]]
    skipped = [entry for sample in samples for entry in sample['skipped']]
    assert len(samples) == 60
    assert {name for name, _ in skipped} == {str(tmp_path / '003.png')}


def test_what_does_not_fit(folder):
    with pytest.raises(ValueError, match='multiples of patch=16'):
        TokenPacks(config(folder)['dataset'], [40], 16)
    with pytest.raises(ValueError, match='tokens=0'):
        TokenPacks(config(folder)['dataset'], [32], 0)
    dataset = dict(config(folder)['dataset'], pipeline=[dict(type='kpu_mm.PackImage')])
    with pytest.raises(ValueError, match='DecodeRandomResizedCrop'):
        TokenPacks(dataset, [32], 16)
