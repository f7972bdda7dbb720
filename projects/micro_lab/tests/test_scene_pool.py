from __future__ import annotations

import numpy as np

from projects.micro_lab.digit_scenes import COLOURS, scene
from projects.micro_lab.scene_pool import load_pool


def test_holds_the_scenes(pool):
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


def test_is_composed_once(pool, pools):
    (place,) = pools.iterdir()
    before = (place / 'images.npy').stat().st_mtime_ns
    again = load_pool(pools, 'test', seed=4, count=24)
    assert np.array_equal(again.images, pool.images)
    assert (place / 'images.npy').stat().st_mtime_ns == before
    assert [p.name for p in pools.iterdir()] == [place.name]
