"""Parts of a folder, central squares, classes of ImageNet's synsets."""

from itertools import chain

import numpy as np
import pytest
import torch
from PIL import Image

from projects.real_model.photographs import PARTS, imagenet_photographs, split_photographs, squares


def paint(path, value, size=(48, 40)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*size, 3), value, np.uint8)).save(path)


@pytest.fixture
def folder(tmp_path):
    """25 images in two folders, each of one grey."""
    for i in range(25):
        paint(tmp_path / 'photos' / str(i % 2) / f'{i:02}.png', 10 * i)
    (tmp_path / 'photos' / 'notes.txt').write_text('no image')
    return tmp_path / 'photos'


def test_parts_are_disjoint_and_complete(folder, tmp_path):
    counts = split_photographs(folder, tmp_path / 'lists')
    assert counts == dict(train=19, validation=3, test=3)
    listed = [(tmp_path / 'lists' / f'{part}.txt').read_text().splitlines() for part in PARTS]
    assert sorted(chain.from_iterable(listed)) == sorted(map(str, folder.rglob('*.png')))
    # the same again, whatever order the file system has
    before = (tmp_path / 'lists' / 'test.txt').read_bytes()
    split_photographs(folder, tmp_path / 'lists')
    assert (tmp_path / 'lists' / 'test.txt').read_bytes() == before


def test_refuses_other_photographs_for_the_same_run(folder, tmp_path):
    split_photographs(folder, tmp_path / 'lists')
    paint(folder / 'new.png', 1)
    with pytest.raises(ValueError, match='is of other photographs'):
        split_photographs(folder, tmp_path / 'lists')


def test_too_few(folder, tmp_path):
    for path in sorted(folder.rglob('*.png'))[9:]:
        path.unlink()
    with pytest.raises(ValueError, match='has 9 images; the experiment needs 10'):
        split_photographs(folder, tmp_path / 'lists')


def test_each_photograph_once(folder, tmp_path):
    split_photographs(folder, tmp_path / 'lists')
    listing = tmp_path / 'lists' / 'train.txt'
    images = torch.cat([batch.images for batch in squares(listing, 32, 100)])
    assert images.shape == (19, 3, 32, 32)
    greys = sorted(images.float().mean((1, 2, 3)).round().int().tolist())
    expected = [np.array(Image.open(p)).mean() for p in listing.read_text().splitlines()]
    assert greys == sorted(expected)
    assert sum(len(batch.images) for batch in squares(listing, 32, 7)) == 7


def test_the_central_square(tmp_path):
    wide = np.zeros((40, 80, 3), np.uint8)
    wide[:, 20:60] = 200
    Image.fromarray(wide).save(tmp_path / 'wide.png')
    (tmp_path / 'list.txt').write_text('wide.png\n')
    (batch,) = squares(tmp_path / 'list.txt', 40, 1)
    assert (batch.images == 200).all()
    assert batch.labels is None


def test_classes_of_synsets(tmp_path):
    # espresso, tench, cup: ImageNet-1k's classes 967, 0, 968
    for synset, value in (('n07920052', 1), ('n01440764', 2), ('n07930864', 3)):
        paint(tmp_path / synset / 'a.png', value)
    (batch,) = imagenet_photographs(tmp_path, 32, 10)
    found = dict(zip(batch.images.float().mean((1, 2, 3)).tolist(), batch.labels, strict=True))
    assert found == {1.0: 967, 2.0: 0, 3.0: 968}
    paint(tmp_path / 'cats' / 'a.png', 4)
    with pytest.raises(ValueError, match="a folder 'cats', which is no synset"):
        imagenet_photographs(tmp_path, 32, 10)
