from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.registry import init_default_scope
from PIL import Image

from projects.micro_lab import make_digit_scenes
from projects.micro_lab.digit_scenes import scene
from projects.micro_lab.make_digit_scenes import run_lengths, write_digit_scenes

CONFIG = Path(__file__).parents[1] / 'configs/_base_/digit_scenes.py'
COUNT = 8


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp('scenes') / 'digits'
    root.mkdir()
    write_digit_scenes(root / 'train', 'train', 3, COUNT)
    write_digit_scenes(root / 'test', 'test', 3, COUNT)
    return root


def read(toolbox, name, root, *transforms):
    """Yield each scene with the entry of a toolbox's dataset."""
    pytest.importorskip(toolbox)
    utils = import_module(f'{toolbox}.utils')
    utils.register_all_modules(init_default_scope=False)
    config = Config.fromfile(CONFIG)[name]
    image = dict(type='LoadImageFromFile', _scope_='kpu_mm')
    config.update(data_root=str(root), pipeline=[image, *transforms])
    dataset = import_module(f'{toolbox}.registry').DATASETS.build(config)
    assert len(dataset) == COUNT
    for index in range(COUNT):
        made, found = scene(name.split('_')[-1], 3, index), dataset[index]
        # The toolboxes read BGR.
        assert np.array_equal(found['img'][..., ::-1], made.image)
        yield made, found


def test_run_lengths_by_hand():
    # Column by column: 0 1, 1 1, 0 0.
    mask = np.array([[0, 1, 0], [1, 1, 0]], bool)
    assert run_lengths(mask) == [1, 3, 2]
    assert run_lengths(~mask) == [0, 1, 3, 2]
    assert run_lengths(np.zeros((2, 2), bool)) == [4]


def test_mmdet_reads_boxes_and_masks(root):
    labels = dict(type='LoadAnnotations', with_bbox=True, with_mask=True)
    for made, found in read('mmdet', 'digits_detection_train', root, labels):
        assert np.array_equal(found['gt_bboxes'].tensor, made.boxes)
        assert np.array_equal(found['gt_masks'].masks, made.masks)
        assert np.array_equal(found['gt_bboxes_labels'], made.digits)


def test_coco_metric_takes_the_truth_for_perfect(root):
    pytest.importorskip('mmdet')
    import torch
    from mmdet.evaluation import CocoMetric
    from pycocotools.mask import encode

    path = root / 'test' / 'instances.json'
    metric = CocoMetric(str(path), metric=['bbox', 'segm'])
    classes = Config.fromfile(CONFIG).words
    metric.dataset_meta = dict(classes=classes)
    for index in range(COUNT):
        made = scene('test', 3, index)
        # pycocotools wants (H, W, N) in column order.
        masks = np.asfortranarray(made.masks.transpose(1, 2, 0), np.uint8)
        prediction = dict(
            bboxes=torch.from_numpy(made.boxes).float(),
            labels=torch.from_numpy(made.digits),
            scores=torch.ones(len(made.digits)),
            masks=encode(masks),
        )
        sample = dict(img_id=index, ori_shape=(64, 64), pred_instances=prediction)
        metric.process({}, [sample])
    scores = metric.evaluate(COUNT)
    assert scores['coco/bbox_mAP'] == scores['coco/segm_mAP'] == 1


def test_mmseg_reads_maps(root):
    labels = dict(type='LoadAnnotations')
    for made, found in read('mmseg', 'digits_segmentation_test', root, labels):
        assert np.array_equal(found['gt_seg_map'], made.semantic)
    # Class 0 of the maps must be the background in the config too.
    classes = Config.fromfile(CONFIG).digits_segmentation.metainfo.classes
    assert classes[0] == 'background'


def test_mmpretrain_reads_dominant_digits(root):
    for made, found in read('mmpretrain', 'digits_classification_train', root):
        assert found['gt_label'] == made.label


def test_captions(root):
    content = json.loads((root / 'train' / 'captions.json').read_text())
    for index, entry in enumerate(content['annotations']):
        assert entry['image_id'] == index
        assert entry['caption'] == scene('train', 3, index).caption


def test_same_scenes_are_left_others_refused(root, tmp_path):
    before = (root / 'train' / 'instances.json').stat().st_mtime_ns
    write_digit_scenes(root / 'train', 'train', 3, COUNT)
    assert (root / 'train' / 'instances.json').stat().st_mtime_ns == before
    with pytest.raises(ValueError, match="'seed': 3"):
        write_digit_scenes(root / 'train', 'train', 4, COUNT)
    (tmp_path / 'mine').mkdir()
    with pytest.raises(ValueError, match='something else'):
        write_digit_scenes(tmp_path / 'mine', 'train', 3, COUNT)


def test_an_interrupted_run_leaves_nothing(tmp_path, monkeypatch):
    def fail(*_):
        raise KeyboardInterrupt

    # The temporary folder exists by then, and must not stay.
    monkeypatch.setattr(make_digit_scenes, 'scene', fail)
    with pytest.raises(KeyboardInterrupt):
        write_digit_scenes(tmp_path / 'new', 'train', 0, 2)
    assert not list(tmp_path.iterdir())


def test_images_survive_as_png(root):
    with Image.open(root / 'train' / 'images' / '000002.png') as file:
        assert np.array_equal(file, scene('train', 3, 2).image)


@pytest.fixture(autouse=True)
def scope():
    """Leave no toolbox's registries as the default ones."""
    yield
    init_default_scope('mmengine')
