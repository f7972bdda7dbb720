"""What all Inferencers share, on the quickest of them."""

import json
import sys
import threading

import cv2
import mmcv
import numpy as np
import pytest
from mmcv.transforms import LoadImageFromFile
from mmengine.config import Config
from PIL import Image

from kpu_mm.apis import FeatureInferencer, ZeroShotClassificationInferencer
from kpu_mm.apis.base_inferencer import (
    ImageInferencer,
    as_loaded,
    split_arrays,
    split_loading,
    write_prediction,
)
from kpu_mm.apis.read_images import NamedImage


@pytest.fixture(scope='module')
def infer(student_dir):
    return FeatureInferencer(student_dir, device='cpu', image_size=64)


@pytest.fixture(scope='module')
def classify(student_dir):
    return ZeroShotClassificationInferencer(student_dir, device='cpu')


def summaries(result):
    return np.stack([p['summary'] for p in result['predictions']])


def test_array_is_bgr_and_equals_the_file(infer, pictures):
    path = str(pictures / 'a.png')
    bgr = cv2.imread(path)
    expected = summaries(infer(path))
    assert (summaries(infer(bgr)) == expected).all()
    assert (summaries(infer(Image.open(path))) == expected).all()
    turned = summaries(infer(bgr[..., ::-1]))
    assert np.abs(turned - expected).max() > 1e-3


def test_batches_equal_single_images(infer, classify, pictures):
    """Two images of one size, then one of another."""
    one, three = (infer(pictures, batch_size=size) for size in (1, 3))
    np.testing.assert_allclose(summaries(one), summaries(three), rtol=1e-4, atol=1e-5)
    ask = dict(classes=['cat', 'dog'], templates=['{}'])
    one, three = (classify(pictures, batch_size=size, **ask) for size in (1, 3))
    for a, b in zip(one['predictions'], three['predictions'], strict=True):
        assert a['names'] == b['names']
        assert a['scores'] == pytest.approx(b['scores'], rel=1e-4)


def test_batches_are_as_large_as_sizes_allow(infer, pictures, monkeypatch):
    sizes = []
    forward = infer.forward
    monkeypatch.setattr(infer, 'forward', lambda x: sizes.append(len(x)) or forward(x))
    a, b, c = (pictures / f'{name}.png' for name in 'abc')
    found = infer([a, b, a, c, b, a], batch_size=2)
    assert sizes == [2, 1, 1, 2]
    names = [p['img_path'][-5] for p in found['predictions']]
    assert names == list('abacba')


def test_frames_get_pictures_and_files(infer, video, tmp_path):
    found = infer(video, out_dir=tmp_path, pred_out_dir=tmp_path, video_stride=3)
    assert len(found['predictions']) == 3 and not found['visualization']
    stems = ['clip_000000', 'clip_000003', 'clip_000006']
    assert sorted(p.stem for p in (tmp_path / 'vis').iterdir()) == stems
    assert sorted(p.stem for p in tmp_path.glob('*.json')) == stems


def test_what_the_model_gave(classify, pictures):
    ask = dict(classes=['cat', 'dog'], templates=['{}'])
    path = pictures / 'a.png'
    (sample,) = classify(path, return_datasamples=True, **ask)['predictions']
    (told,) = classify(path, **ask)['predictions']
    assert sorted(sample.pred_score.tolist()) == sorted(told['scores'])


def test_broken_image_among_many(infer, pictures, tmp_path):
    (tmp_path / 'a.png').write_bytes((pictures / 'a.png').read_bytes())
    (tmp_path / 'b.jpg').write_bytes(b'not an image')
    with pytest.raises(ValueError, match=r'b\.jpg'):
        infer(tmp_path, batch_size=2)
    # and the next call is as ever
    assert len(infer(pictures)['predictions']) == 3


def test_calls_from_threads_keep_apart(classify, pictures):
    """Each gets the answer to its own question."""
    classify.show_progress = False
    asked = [['cat', 'dog'], ['red car'], ['dog', 'my cat', 'remote']]
    answers = {}

    def ask(number):
        for _ in range(3):
            found = classify(pictures, classes=asked[number], templates=['{}'])['predictions']
            answers.setdefault(number, []).extend(found)

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    classify.show_progress = True
    for number, names in enumerate(asked):
        assert len(answers[number]) == 9
        for answer in answers[number]:
            assert sorted(answer['names']) == sorted(names)


def test_progress_is_not_in_the_way_of_results(infer, pictures, capsys):
    infer(pictures)
    out, err = capsys.readouterr()
    assert not out and 'Inference' in err


def test_a_toolbox_that_is_missing_is_named(student_dir, monkeypatch):
    monkeypatch.setitem(sys.modules, 'mmpretrain', None)
    with pytest.raises(ImportError, match='needs mmpretrain, not installed here'):
        ZeroShotClassificationInferencer(student_dir, device='cpu')


def test_counts_below_one(infer, pictures):
    for name in ('batch_size', 'video_stride'):
        with pytest.raises(ValueError, match=f'{name}=0.*pass 1 or more'):
            infer(pictures, **{name: 0})


def test_loading_is_left_out():
    steps = [
        dict(type='kpu_mm.LoadImageFromFile', orientation='ignore'),
        dict(type='Resize'),
        dict(type='LoadAnnotations'),
        dict(type='kpu_mm.Load'),
        dict(type='Pack'),
    ]
    assert split_loading(steps) == (steps[0], [steps[1], steps[4]])
    assert split_loading(steps[1:]) == ({}, [steps[1], steps[4]])


@pytest.mark.parametrize(
    ('options', 'orientation', 'to_float32'),
    [
        ({}, 'exif', False),
        (dict(orientation='ignore'), 'ignore', False),
        (dict(ignore_orientation=True, to_float32=True), 'ignore', True),
        (dict(color_type='color_ignore_orientation'), 'ignore', False),
        (dict(color_type='grayscale'), None, None),
    ],
)
def test_options_of_loading(infer, options, orientation, to_float32, monkeypatch):
    for name in ('orientation', 'to_float32'):  # restored when the test ends
        monkeypatch.setattr(infer, name, None)
    pipeline = [dict(type='LoadImageFromFile', **options)]
    cfg = Config(dict(test_dataloader=dict(dataset=dict(pipeline=pipeline))))
    if orientation is None:
        with pytest.raises(ValueError, match="color_type='grayscale' of LoadImageFromFile"):
            ImageInferencer._init_pipeline(infer, cfg)
        return
    ImageInferencer._init_pipeline(infer, cfg)
    assert (infer.orientation, infer.to_float32) == (orientation, to_float32)


@pytest.mark.parametrize('to_float32', [False, True])
def test_as_mmcv_loads(pictures, to_float32):
    path = str(pictures / 'c.png')
    ours = as_loaded(NamedImage(mmcv.imread(path), path, 'c'), to_float32)
    theirs = LoadImageFromFile(to_float32)(dict(img_path=path))
    assert ours['img'].dtype == theirs['img'].dtype
    assert (ours.pop('img') == theirs.pop('img')).all()
    assert ours.pop('img_id') == 0 and ours == theirs
    assert ours['img_shape'] == np.array(mmcv.imread(path)).shape[:2]


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
