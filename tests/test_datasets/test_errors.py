from __future__ import annotations

import pickle

from kpu_mm.datasets import CorruptImageError


def test_survives_the_way_from_a_worker():
    error = pickle.loads(pickle.dumps(CorruptImageError('a.jpg', 'cut off')))
    assert (error.name, error.reason) == ('a.jpg', 'cut off')
    assert str(error) == 'a.jpg: cut off'
