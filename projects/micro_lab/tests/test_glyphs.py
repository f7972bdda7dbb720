import numpy as np
import pytest

from projects.micro_lab.glyphs import draw_glyphs
from projects.micro_lab.materials import DIGIT_WORDS, materials
from projects.micro_lab.scene_pool import load_pool


@pytest.mark.parametrize('kind', ['letters', 'scripts'])
def test_scans_are_like_those_of_digits(kind):
    ink, classes, names = draw_glyphs(kind, 'train')
    assert ink.shape[1:] == (8, 8) and ink.dtype == np.float32
    assert ink.min() >= 0 and ink.max() <= 1
    # every glyph has ink, and as much of it as a digit
    share = (ink > 0.25).mean((1, 2))
    digits = (materials('train').scans[:, 1:-1, 1:-1] > 0.25).mean((1, 2))
    assert share.min() > 0.03
    assert abs(share.mean() - digits.mean()) < 0.15
    assert set(classes) == set(range(len(names))) and len(set(names)) == len(names)
    again = draw_glyphs(kind, 'train')[0]
    np.testing.assert_array_equal(ink, again)


def test_no_digit_and_no_letter_of_the_unseen_scripts_is_among_the_letters():
    letters, scripts = (draw_glyphs(kind, 'train')[2] for kind in ('letters', 'scripts'))
    assert not set(letters) & set('0123456789OoIlSZzB%')
    assert not set(letters) & set(scripts)


def test_splits_of_letters_have_different_shapes():
    train, test = (draw_glyphs('letters', split) for split in ('train', 'test'))
    assert train[2] == test[2]
    assert not {s.tobytes() for s in train[0]} & {s.tobytes() for s in test[0]}


def test_pools_of_letters(tmp_path):
    pool = load_pool(tmp_path, 'train', seed=3, count=12, glyphs='letters')
    assert pool.digits.max() > len(DIGIT_WORDS)
    assert (pool.instances.flatten(1).max(1).values >= 1).all()
    large = load_pool(tmp_path, 'train', seed=3, count=12, size=96)
    assert large.images.shape == (12, 96, 96, 3)
    assert load_pool(tmp_path, 'train', seed=3, count=12).images.shape == (12, 64, 64, 3)
