import os
import pickle
from collections import OrderedDict

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from tools.model_converters.mask_dino import read_official


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
    read = read_official(path)
    assert list(read) == ['weight', 'index', 'scalar']
    for name, value in content['model'].items():
        assert_close(read[name], torch.as_tensor(value), rtol=0, atol=0)


def test_place_of_numpy_1(tmp_path):
    array = np.arange(6.0).reshape(2, 3)
    data = pickle.dumps({'model': {'weight': array}}, protocol=2)
    for place in (b'numpy._core.multiarray', b'numpy.core.multiarray'):
        path = tmp_path / 'weights.pkl'
        path.write_bytes(data.replace(b'numpy._core.multiarray', place))
        np.testing.assert_array_equal(read_official(path)['weight'], array)


class Command:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_code_is_refused(tmp_path):
    path, trace = tmp_path / 'weights.pkl', tmp_path / 'trace'
    path.write_bytes(pickle.dumps({'model': Command(trace)}))
    with pytest.raises(RuntimeError, match=r'could run code \(\w+\.mkdir\)'):
        read_official(path)
    assert not trace.exists()


def test_truncated_and_missing(tmp_path):
    path = tmp_path / 'weights.pkl'
    path.write_bytes(pickle.dumps(np.zeros(100))[:-50])
    with pytest.raises(RuntimeError, match='corrupt'):
        read_official(path)
    with pytest.raises(FileNotFoundError, match='does not exist'):
        read_official(tmp_path / 'none.pkl')


def test_other_content_is_refused(tmp_path):
    path = tmp_path / 'weights.pkl'
    path.write_bytes(pickle.dumps([1, 2]))
    with pytest.raises(ValueError, match="no weights under 'model'"):
        read_official(path)
