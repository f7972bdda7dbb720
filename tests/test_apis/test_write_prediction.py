import json

import numpy as np

from kpu_mm.apis.write_prediction import split_arrays, write_prediction


def test_json_and_arrays(tmp_path):
    maps = [np.ones((2, 3)), np.zeros(4)]
    prediction = dict(names=['a'], seg=np.arange(3), maps=maps, none=None)
    write_prediction(prediction, tmp_path / 'new', 'x')
    told = json.loads((tmp_path / 'new/x.json').read_text())
    assert told == dict(names=['a'], none=None, arrays='x.npz')
    arrays = np.load(tmp_path / 'new/x.npz')
    assert set(arrays) == {'seg', 'maps_0', 'maps_1'}
    assert (arrays['maps_0'] == maps[0]).all()
    assert (arrays['seg'] == np.arange(3)).all()


def test_json_alone(tmp_path):
    write_prediction(dict(scores=[0.5]), tmp_path, 'x')
    assert [p.name for p in tmp_path.iterdir()] == ['x.json']
    assert split_arrays(dict(scores=[])) == ({}, dict(scores=[]))
