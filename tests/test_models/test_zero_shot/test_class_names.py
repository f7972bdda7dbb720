import sys

import open_clip
import pytest

from kpu_mm.models.zero_shot.class_names import check_text, find_classes


def test_lists_of_data_sets():
    assert find_classes('imagenet') == tuple(open_clip.IMAGENET_CLASSNAMES)
    names = find_classes('ade20k')
    assert len(names) == 150
    assert names[7] == 'bed'  # MMSegmentation's has a space behind it


def test_unknown_data_set(monkeypatch):
    with pytest.raises(ValueError, match=r"no class list 'cat': pass a list"):
        find_classes('cat')
    monkeypatch.setitem(sys.modules, 'mmseg.utils', None)
    with pytest.raises(ValueError, match='with MMSegmentation installed'):
        find_classes('ade20k')


def test_own_list():
    assert find_classes([' cat', 'hot dog']) == ('cat', 'hot dog')
    with pytest.raises(ValueError, match='class list is empty'):
        find_classes([])


@pytest.mark.parametrize('text', ['', ' ', '. . .', 'the', 'A, of the!', 3])
def test_texts_that_name_nothing(text):
    with pytest.raises(ValueError, match='names nothing: write'):
        check_text(text)
    with pytest.raises(ValueError, match='names nothing'):
        find_classes(['cat', text])


@pytest.mark.parametrize('text', ['The Who', '猫', 'a cat.', '7', 'trash can'])
def test_texts_that_name_something(text):
    check_text(text)
