from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from projects.micro_lab.digit_scenes import (
    COLOURS,
    DIGIT_WORDS,
    MAX_DIGITS,
    materials,
    scene,
    tight_box,
)


@pytest.fixture(scope='module')
def scenes():
    return [scene('train', 5, index) for index in range(60)]


def equal(a, b):
    return a.colours == b.colours and all(
        np.array_equal(x, y) for x, y in zip(a, b, strict=True)
    )


def test_is_a_pure_function_of_its_arguments(scenes):
    assert equal(scene('train', 5, 17), scenes[17])
    others = [
        scene('train', 5, 18),
        scene('train', 6, 17),
        scene('test', 5, 17),
    ]
    assert not any(equal(other, scenes[17]) for other in others)


def test_is_the_same_in_a_process_without_the_toolboxes(scenes):
    code = (
        'import sys; from projects.micro_lab.digit_scenes import scene;'
        "s = scene('train', 5, 17); print(s.image.tobytes().hex());"
        "names = {m.partition('.')[0] for m in sys.modules};"
        "print(s.caption, names & {'mmdet', 'mmseg', 'mmpretrain',"
        "'sklearn', 'skimage', 'pycocotools'}, sep='; ')"
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
        # no pixel belongs to two digits
        assert made.masks.sum(0).max() == 1
        for digit in range(10):
            expected = made.masks[made.digits == digit].any(0)
            assert np.array_equal(made.semantic == digit + 1, expected)
        assert made.label == made.digits[0]
        words = made.caption.split()
        assert [w for w in words if w in DIGIT_WORDS] == [
            DIGIT_WORDS[made.label]
        ]
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
    """Pixels of a digit have its colour, which what is around has not."""
    for made in scenes:
        for name, mask in zip(made.colours, made.masks, strict=True):
            pixels = made.image[mask].astype(float)
            # the jitter of a colour is 18 levels, noise and edges add more
            distance = np.abs(np.median(pixels, 0) - COLOURS[name])
            assert distance.max() < 40


def test_sizes_show_the_same_composition():
    small, large = (scene('test', 1, 4, size) for size in (64, 96))
    assert small.image.shape == (64, 64, 3)
    assert large.image.shape == (96, 96, 3)
    assert large.masks.shape[1:] == (96, 96)
    assert small.digits[0] == large.digits[0]
