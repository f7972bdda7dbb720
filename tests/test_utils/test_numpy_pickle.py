import os
import pickle
from collections import OrderedDict

import numpy as np
import pytest

from kpu_mm.utils.numpy_pickle import load_numpy_pickle


@pytest.mark.parametrize('protocol', [0, 2, 4])
def test_arrays_survive(tmp_path, protocol):
    rng = np.random.default_rng()
    content = {
        'model': OrderedDict(
            weight=rng.normal(size=(3, 4)).astype(np.float32),
            index=np.arange(5),
            scalar=np.float32(0.5),
        ),
        '__author__': 'someone',
    }
    path = tmp_path / 'weights.pkl'
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    read = load_numpy_pickle(path)
    assert read['__author__'] == 'someone'
    assert list(read['model']) == ['weight', 'index', 'scalar']
    for name, value in content['model'].items():
        np.testing.assert_array_equal(read['model'][name], value)
        assert read['model'][name].dtype == value.dtype


def test_place_of_numpy_1(tmp_path):
    array = np.arange(6.0).reshape(2, 3)
    data = pickle.dumps(array, protocol=2)
    for place in (b'numpy._core.multiarray', b'numpy.core.multiarray'):
        path = tmp_path / 'weights.pkl'
        path.write_bytes(data.replace(b'numpy._core.multiarray', place))
        np.testing.assert_array_equal(load_numpy_pickle(path), array)


class Command:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_code_is_refused(tmp_path):
    path, trace = tmp_path / 'weights.pkl', tmp_path / 'trace'
    path.write_bytes(pickle.dumps({'model': Command(trace)}))
    with pytest.raises(RuntimeError, match=r'could run code \(\w+\.mkdir\)'):
        load_numpy_pickle(path)
    assert not trace.exists()


def test_truncated_and_missing(tmp_path):
    path = tmp_path / 'weights.pkl'
    path.write_bytes(pickle.dumps(np.zeros(100))[:-50])
    with pytest.raises(RuntimeError, match='corrupt'):
        load_numpy_pickle(path)
    with pytest.raises(FileNotFoundError, match='does not exist'):
        load_numpy_pickle(tmp_path / 'none.pkl')
