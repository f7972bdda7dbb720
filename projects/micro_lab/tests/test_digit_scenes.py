from __future__ import annotations

import io
import pickle
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from kpu_mm.datasets import UnlabeledImages
from projects.micro_lab import materials as parts
from projects.micro_lab.digit_scenes import MAX_DIGITS, DigitSceneSource, scene, tight_box
from projects.micro_lab.materials import COLOURS, DIGIT_WORDS, PHOTOGRAPHS, materials
from projects.micro_lab.scene_pool import load_pool


def test_splits_share_nothing():
    train, test = materials('train'), materials('test')
    assert not set(PHOTOGRAPHS['train']) & set(PHOTOGRAPHS['test'])
    assert len(train.scans) == 1400 and len(test.scans) == 397
    # No scan of one split equals one of the other pixel by pixel.
    seen = {scan.tobytes() for scan in train.scans}
    assert not seen & {scan.tobytes() for scan in test.scans}


@pytest.mark.parametrize('split', ['train', 'test'])
def test_scans_hold_ink_and_every_digit(split):
    found = materials(split)
    assert found.scans.shape[1:] == (10, 10)
    assert found.scans.min() == 0 and found.scans.max() == 1
    assert not found.scans[:, [0, -1]].any()
    assert not found.scans[:, :, [0, -1]].any()
    counts = np.bincount(found.digits)
    assert len(counts) == 10 and counts.min() > 30
    for photograph in found.photographs:
        assert photograph.mode == 'RGB' and max(photograph.size) <= 512


def test_the_first_scan_is_a_zero():
    # The first row of the file, as UCI publishes it.
    row = [0, 0, 5, 13, 9, 1, 0, 0]
    np.testing.assert_allclose(16 * materials('train').scans[0, 1, 1:-1], row, atol=1e-5)
    assert materials('train').digits[0] == 0


def test_says_what_is_missing(monkeypatch):
    with pytest.raises(ValueError, match="no split 'val'"):
        materials('val')
    monkeypatch.setattr(parts, 'find_spec', lambda name: None)
    materials.cache_clear()
    with pytest.raises(ImportError, match='pip install scikit-learn'):
        materials('train')


@pytest.fixture(scope='module')
def scenes():
    return [scene('train', 5, index) for index in range(60)]


def equal(a, b):
    return a.colours == b.colours and all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def test_scene_is_a_pure_function_of_its_arguments(scenes):
    assert equal(scene('train', 5, 17), scenes[17])
    others = [scene('train', 5, 18), scene('train', 6, 17), scene('test', 5, 17)]
    assert not any(equal(other, scenes[17]) for other in others)


def test_scene_is_the_same_in_a_process_without_the_toolboxes(scenes):
    # Another hash seed shows that Python's own hash plays no part.
    code = (
        'import sys; from projects.micro_lab.digit_scenes import scene;'
        "s = scene('train', 5, 17); print(s.image.tobytes().hex());names = {m.partition('.')[0] "
        "for m in sys.modules};print(s.caption, names & {'mmdet', 'mmseg', 'mmpretrain','sklearn', "
        "'skimage', 'pycocotools'}, sep='; ')"
    )
    done = subprocess.run(
        [sys.executable, '-c', code],
        capture_output=True,
        text=True,
        check=True,
        env={'PYTHONPATH': ':'.join(sys.path), 'PYTHONHASHSEED': '7'},
    )
    image, rest = done.stdout.splitlines()
    assert bytes.fromhex(image) == scenes[17].image.tobytes()
    assert rest == f'{scenes[17].caption}; set()'


def test_boxes_are_tight_around_masks(scenes):
    for made in scenes:
        for mask, (x1, y1, x2, y2) in zip(made.masks, made.boxes, strict=True):
            inside = np.zeros_like(mask)
            inside[y1:y2, x1:x2] = True
            assert not (mask & ~inside).any()
            assert mask[y1].any() and mask[y2 - 1].any()
            assert mask[:, x1].any() and mask[:, x2 - 1].any()


def test_a_box_by_hand():
    mask = np.zeros((5, 7), bool)
    mask[1, 2] = mask[3, 5] = True
    assert tight_box(mask) == (2, 1, 6, 4)


def test_labels_agree(scenes):
    digits = materials('train').digits
    for made in scenes:
        assert np.array_equal(digits[made.scans], made.digits)
        # No pixel belongs to two digits.
        assert made.masks.sum(0).max() == 1
        for digit in range(10):
            expected = made.masks[made.digits == digit].any(0)
            assert np.array_equal(made.semantic == digit + 1, expected)
        assert made.label == made.digits[0]
        words = made.caption.split()
        assert [w for w in words if w in DIGIT_WORDS] == [DIGIT_WORDS[made.label]]
        named = [w for w in words if w in COLOURS]
        assert named in ([], [made.colours[0]])


def test_the_variety_that_tasks_need(scenes):
    numbers = [len(made.digits) for made in scenes]
    assert set(numbers) == set(range(1, MAX_DIGITS + 1))
    boxes = np.concatenate([made.boxes for made in scenes])
    heights = boxes[:, 3] - boxes[:, 1]
    assert heights.min() < 16 and heights.max() > 28
    overlaps = [
        (np.maximum(a[:2], b[:2]) < np.minimum(a[2:], b[2:])).all()
        for made in scenes
        for i, a in enumerate(made.boxes)
        for b in made.boxes[:i]
    ]
    assert 0.02 < np.mean(overlaps) < 0.5
    assert {c for made in scenes for c in made.colours} == set(COLOURS)


def test_the_first_digit_is_the_largest(scenes):
    for made in scenes:
        frames = (made.boxes[:, 2:] - made.boxes[:, :2]).max(1)
        assert (frames[0] >= frames[1:]).all()


def test_digits_stand_out(scenes):
    """The pixels of a digit have its colour."""
    for made in scenes:
        for name, mask in zip(made.colours, made.masks, strict=True):
            pixels = made.image[mask].astype(float)
            # The jitter of a colour is 18 levels; noise and edges add more.
            distance = np.abs(np.median(pixels, 0) - COLOURS[name])
            assert distance.max() < 40


def test_sizes_show_the_same_composition():
    small, large = (scene('test', 1, 4, size) for size in (64, 96))
    assert small.image.shape == (64, 64, 3)
    assert large.image.shape == (96, 96, 3)
    assert large.masks.shape[1:] == (96, 96)
    # Placement may differ between sizes, but not the dominant digit.
    assert small.digits[0] == large.digits[0]


def test_source_reads_the_scenes_of_its_series():
    source = DigitSceneSource('test', seed=2, count=5, size=96)
    assert len(source) == 5
    # Workers of a loader get a pickled copy.
    copy = pickle.loads(pickle.dumps(source))
    with Image.open(io.BytesIO(copy.read(4))) as file:
        assert np.array_equal(file, scene('test', 2, 4, 96).image)
    assert source.name(4) == 'digit scene test/2/4'


def test_source_refuses_what_is_not_there():
    with pytest.raises(IndexError, match=r'outside 0\.\.4'):
        DigitSceneSource(count=5).read(5)
    with pytest.raises(ValueError, match="no split 'val'"):
        DigitSceneSource('val')


def test_source_feeds_the_unlabelled_dataset():
    dataset = UnlabeledImages(
        dict(type='kpu_mm.DigitSceneSource', count=3),
        [dict(type='kpu_mm.DecodeResize', shortest=64, longest=64), dict(type='kpu_mm.PackImage')],
    )
    pictures = {dataset[i]['image'].numpy().tobytes() for i in range(3)}
    expected = {scene('train', 0, i).image.transpose(2, 0, 1).tobytes() for i in range(3)}
    assert pictures == expected


def test_pool_holds_the_scenes_and_is_composed_once(tmp_path):
    pool = load_pool(tmp_path, 'test', seed=4, count=24)
    for index in range(24):
        made = scene('test', 4, index)
        number = len(made.digits)
        assert np.array_equal(pool.images[index], made.image)
        for which in range(number):
            mask = pool.instances[index] == which + 1
            assert np.array_equal(mask, made.masks[which])
            colour = list(COLOURS)[pool.colours[index, which]]
            assert colour == made.colours[which]
        for name in ('digits', 'scans', 'boxes'):
            values = getattr(pool, name)[index]
            assert np.array_equal(values[:number], getattr(made, name))
        assert (pool.digits[index, number:] == -1).all()
    (place,) = tmp_path.iterdir()
    before = (place / 'images.npy').stat().st_mtime_ns
    again = load_pool(tmp_path, 'test', seed=4, count=24)
    assert np.array_equal(again.images, pool.images)
    assert (place / 'images.npy').stat().st_mtime_ns == before
    assert [p.name for p in tmp_path.iterdir()] == [place.name]
