import mmcv
import numpy as np
from mmcv.transforms import LoadImageFromFile

from kpu_mm.apis.pipeline import as_loaded, load_backend, without_loading
from kpu_mm.apis.read_images import NamedImage


def test_loading_is_left_out():
    steps = [
        dict(type='mmdet.LoadImageFromFile', imdecode_backend='pillow'),
        dict(type='Resize'),
        dict(type='LoadAnnotations'),
        dict(type='kpu_mm.Load'),
        dict(type='Pack'),
    ]
    assert load_backend(steps) == 'pillow'
    assert [s['type'] for s in without_loading(steps)] == ['Resize', 'Pack']
    assert load_backend(steps[1:]) == 'cv2'
    assert load_backend([dict(type='LoadImageFromFile')]) == 'cv2'


def test_as_mmcv_loads(pictures):
    path = str(pictures / 'c.png')
    ours = as_loaded(NamedImage(mmcv.imread(path), path, 'c'))
    theirs = LoadImageFromFile()(dict(img_path=path))
    assert (ours.pop('img') == theirs.pop('img')).all()
    assert ours.pop('img_id') == 0 and ours == theirs
    assert ours['img_shape'] == np.array(mmcv.imread(path)).shape[:2]
