from __future__ import annotations

import io
import os
import pickle
from itertools import islice, pairwise

import numpy as np
import pytest
import torch
from PIL import Image

from kpu_mm.datasets import (
    EncodedImage,
    FolderSource,
    ListSource,
    MultiStreamLoader,
    TarSource,
    UnlabeledImages,
    build_stream,
)
from kpu_mm.datasets.aspect_groups import AspectGroups, aspect_ratio

from .conftest import encode, write_tar

# COCO's commonest sizes and their shares, an eighth as large
SHAPES = {(60, 80): 44, (80, 60): 18, (53, 80): 14, (80, 53): 6, (80, 80): 4, (45, 80): 6}
SHAPES |= {(60, 71): 3, (71, 60): 2, (35, 80): 2, (80, 40): 1}


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """100 images; the red channel is the number of the image."""
    root = tmp_path_factory.mktemp('shapes')
    shapes = np.repeat(np.array(list(SHAPES)), list(SHAPES.values()), axis=0)
    for i, (h, w) in enumerate(np.random.default_rng(0).permutation(shapes)):
        Image.new('RGB', (w, h), (i, 0, 0)).save(root / f'{i:03}.png')
    return root


def stream(folder, group_size, batch_size=4, workers=0):
    return dict(
        batch_size=batch_size,
        num_workers=workers,
        dataset=dict(
            type='kpu_mm.UnlabeledImages',
            sources=dict(type='kpu_mm.FolderSource', root=str(folder)),
            group_size=group_size,
            pipeline=[
                dict(type='kpu_mm.DecodeResize', shortest=40, longest=74),
                dict(type='kpu_mm.PackImage'),
            ],
        ),
    )


def take(loader, count):
    batches = [batch['streams']['dino'] for batch in islice(loader, count)]
    loader.close()
    return batches


def padding(batches):
    masks = [b['mask'] for b in batches if b['mask'] is not None]
    area = sum(b['images'][:, 0].numel() for b in batches)
    return sum(int((~mask).sum()) for mask in masks) / area


def numbers(batches):
    """Which image each is, by its first pixel."""
    return [int(image[0, 0, 0]) for b in batches for image in b['images']]


@pytest.mark.parametrize('seed', [0, 1])
def test_batches_have_little_padding(folder, seed):
    mixed, grouped = (
        take(MultiStreamLoader(dict(dino=stream(folder, size)), seed), 150) for size in (1, 4)
    )
    assert padding(mixed) > 0.2
    assert padding(grouped) < 0.08
    # 6 epochs: each image as often as the others, but for the edges
    assert set(np.bincount(numbers(grouped), minlength=100)) <= {5, 6, 7}
    # wide and tall batches alternate
    tall = [b['images'].shape[2] > b['images'].shape[3] for b in grouped]
    assert sum(a != b for a, b in pairwise(tall)) > 20


def test_resumes_exactly_whatever_the_workers(folder):
    whole = take(MultiStreamLoader(dict(dino=stream(folder, 4)), seed=5), 30)
    resumed = MultiStreamLoader(dict(dino=stream(folder, 4, workers=2)), seed=5)
    resumed.start_at(17)
    for a, b in zip(take(resumed, 13), whole[17:], strict=True):
        assert torch.equal(a['images'], b['images'])
    options = stream(folder, 4)['dataset']
    dataset = UnlabeledImages(options['sources'], options['pipeline'], group_size=4)
    again = pickle.loads(pickle.dumps(dataset))
    for position in (70, 3, 130, 3):
        assert torch.equal(dataset[position]['image'], again[position]['image'])


def test_two_processes_see_what_one_sees(folder):
    one = take(MultiStreamLoader(dict(dino=stream(folder, 8, 8)), seed=2), 4)
    loader = MultiStreamLoader(dict(dino=stream(folder, 8, 4)), seed=2)
    # the batches of ranks 0 and 1, one after the other
    assert numbers(take(loader, 8)) == numbers(one)


def test_seeds_have_orders_of_their_own(folder):
    first, second = (
        numbers(take(MultiStreamLoader(dict(dino=stream(folder, 4)), s), 16)) for s in (0, 1)
    )
    assert first != second


def test_groups_by_hand():
    # one window of two groups: the two widest and the two tallest images
    aspects = [2.0, 0.5, 0.6, 1.9]
    groups = AspectGroups(2, 4, lambda p: aspects[p % 4])
    for start in (0, 4, 8):
        order = [groups.locate(start + i, seed=0) - start for i in range(4)]
        assert sorted([tuple(order[:2]), tuple(order[2:])]) == [(1, 2), (3, 0)]
    plain = AspectGroups(1, 4, lambda p: 1 / 0)
    assert [plain.locate(p, 0) for p in range(6)] == list(range(6))
    few = AspectGroups(4, 2, lambda p: 1.0)  # fewer images than a group
    assert sorted(few.locate(p, 0) for p in range(4, 8)) == [4, 5, 6, 7]


def test_a_corrupt_image_is_replaced_and_named(folder, tmp_path):
    for i, path in enumerate(sorted(folder.iterdir())[:20]):
        (tmp_path / path.name).write_bytes(b'' if i == 3 else path.read_bytes())
    batches = take(MultiStreamLoader(dict(dino=stream(tmp_path, 4)), seed=0), 10)
    named = [name for b in batches for name, _ in b['skipped']]
    assert set(named) == {str(tmp_path / '003.png')} and len(named) >= 2
    assert padding(batches) < 0.2


def test_header_of_each_source(tmp_path, images):
    turned = encode(0, (48, 64), exif=turn())
    # EXIF data and a colour profile are longer than what is read first
    big = encode(1, (50, 40), exif=turn(b'y' * 60000), icc_profile=b'z' * 30000)
    tail = io.BytesIO()  # TIFF's header may be at its end
    noise = np.random.default_rng(0).integers(0, 256, (200, 300, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tail, 'TIFF')
    members = {'a.jpg': turned, 'b.jpg': big, 'c.tif': tail.getvalue(), 'd.jpg': b'bad'}
    assert len(tail.getvalue()) > 2**16
    write_tar(tmp_path / 'a.tar', members)
    root = tmp_path / 'root'
    root.mkdir()
    for name, data in members.items():
        (root / name).write_bytes(data)
    for source in (TarSource(str(tmp_path / 'a.tar')), FolderSource(str(root))):
        ratios = [aspect_ratio(source, i) for i in range(4)]
        assert ratios == [64 / 48, 40 / 50, 200 / 300, 1.0]
        assert len(source.head(2)) == 2**16 and source.head(0) == turned
    # a list keeps the bytes of a name that is not UTF-8
    (root / os.fsdecode(b'\xff.jpg')).write_bytes(turned)
    (tmp_path / 'list').write_bytes(b'\xff.jpg\n')
    assert ListSource(str(tmp_path / 'list'), root=str(root)).head(0) == turned

    class Plain:
        def read(self, index):
            return turned

    assert aspect_ratio(Plain(), 0) == 64 / 48


def turn(comment=b''):
    exif = Image.Exif()
    exif[0x0112] = 6
    if comment:
        exif[0x9286] = comment
    return exif


def test_batches_that_would_join_groups_are_refused(folder):
    with pytest.raises(ValueError, match='batch_size=3 would join images of different groups of 4'):
        build_stream(**stream(folder, 4, 3))
    with pytest.raises(ValueError, match='group_size=0'):
        build_stream(**stream(folder, 0))
    assert EncodedImage((folder / '000.png').read_bytes()).size in SHAPES
