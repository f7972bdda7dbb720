from __future__ import annotations

import sys

import numpy as np
import pytest

from projects.micro_lab.digit_scenes.materials import PHOTOGRAPHS, materials


def test_splits_share_nothing():
    train, test = materials('train'), materials('test')
    assert not set(PHOTOGRAPHS['train']) & set(PHOTOGRAPHS['test'])
    assert len(train.scans) == 1400 and len(test.scans) == 397
    # a scan of one split is none of the other, pixel by pixel
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
    # first row of the file, as UCI publishes it
    row = [0, 0, 5, 13, 9, 1, 0, 0]
    np.testing.assert_allclose(
        16 * materials('train').scans[0, 1, 1:-1], row, atol=1e-5
    )
    assert materials('train').digits[0] == 0


def test_says_what_is_missing(monkeypatch):
    with pytest.raises(ValueError, match="no split 'val'"):
        materials('val')
    # the package's attribute of that name is the function
    module = sys.modules[materials.__module__]
    monkeypatch.setattr(module, 'find_spec', lambda name: None)
    materials.cache_clear()
    with pytest.raises(ImportError, match='pip install scikit-learn'):
        materials('train')
