from __future__ import annotations

import pickle
import random

import numpy as np
import pytest
import torch

from kpu_mm.datasets import UnlabeledImages

PIPELINE = [
    {'type': 'kpu_mm.DecodeRandomResizedCrop', 'size': 16},
    {'type': 'mmcv.RandomFlip', 'prob': 0.5},
    {'type': 'kpu_mm.PackImage'},
]


def source(root, **options):
    return {'type': 'kpu_mm.FolderSource', 'root': str(root)} | options


def equal(a, b):
    return torch.equal(a['image'], b['image']) and a['skipped'] == b['skipped']


def test_sample_depends_on_seed_and_position_alone(images):
    dataset = UnlabeledImages(source(images), PIPELINE, seed=3)
    other = pickle.loads(pickle.dumps(dataset))
    assert len(dataset) == 12
    forward = [dataset[p] for p in range(30)]
    random.seed(99)
    np.random.seed(98)
    torch.manual_seed(97)
    assert all(equal(other[p], forward[p]) for p in reversed(range(30)))
    dataset.set_seed(4)
    assert not all(equal(dataset[p], forward[p]) for p in range(30))
    # The second epoch shows the same images, cropped anew.
    assert len({s['image'].numpy().tobytes() for s in forward}) == 30


def test_global_generators_are_left_alone(images):
    dataset = UnlabeledImages(source(images), PIPELINE)
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    expected = random.random(), np.random.rand(), torch.rand(1)
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    dataset[0]
    assert (random.random(), np.random.rand(), torch.rand(1)) == expected


def test_bad_files_are_replaced_and_named(images):
    good = (images / 'n0' / '00.JPEG').read_bytes()
    bad = {
        'n0/00.JPEG': b'',
        'n1/01.JPEG': b'this is no image',
        'n0/02.JPEG': good[: len(good) // 2],
        'n1/03.JPEG': None,
    }
    dataset = UnlabeledImages(source(images), PIPELINE)
    for name, data in bad.items():
        if data is None:
            (images / name).unlink()
        else:
            (images / name).write_bytes(data)
    samples = [dataset[p] for p in range(12)]
    assert all(s['image'].shape == (3, 16, 16) for s in samples)
    # A substitute may be a bad file as well, so each may come up more often.
    named = {name: reason for s in samples for name, reason in s['skipped']}
    assert set(named) == {str(images / name) for name in bad}
    reasons = [named[str(images / name)] for name in bad]
    assert 'empty' in reasons[0]
    assert 'cannot identify' in reasons[1]
    assert 'truncated' in reasons[2]
    assert 'No such file' in reasons[3]
    again = [dataset[p] for p in range(12)]
    assert all(map(equal, samples, again))


def test_too_many_bad_files_stop(images):
    for path in images.rglob('*.JPEG'):
        path.write_bytes(b'bad')
    dataset = UnlabeledImages(source(images), PIPELINE, max_retries=4)
    with pytest.raises(RuntimeError, match='5 images in a row'):
        dataset[0]


def test_bugs_in_transforms_are_not_hidden(images):
    def broken(results):
        raise ValueError('a bug')

    dataset = UnlabeledImages(source(images), [broken])
    with pytest.raises(ValueError, match='a bug'):
        dataset[0]
    dataset = UnlabeledImages(source(images), [lambda results: None])
    with pytest.raises(ValueError, match='returned None'):
        dataset[0]


def test_several_sources_by_weight(images, tmp_path):
    few = tmp_path / 'few'
    few.mkdir()
    (few / 'white.png').write_bytes(white())
    dataset = UnlabeledImages([source(images), source(few)], PIPELINE, weights=[3, 1])
    assert len(dataset) == 13
    white_ones = [int(dataset[p]['image'].min()) == 255 for p in range(40)]
    assert sum(white_ones) == 10


def test_no_source_is_refused():
    with pytest.raises(ValueError, match='`sources` is empty'):
        UnlabeledImages([], PIPELINE)


def white():
    import io

    from PIL import Image

    file = io.BytesIO()
    Image.new('RGB', (20, 20), 'white').save(file, 'PNG')
    return file.getvalue()
