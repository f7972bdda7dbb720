"""Trained decoders, compared with the toolboxes' own Inferencers."""

import pickle
import runpy
import sys

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.structures import PixelData
from pycocotools import mask as coco_mask

from kpu_mm.apis import ClassificationInferencer, DetectionInferencer, SegmentationInferencer
from kpu_mm.engine.checkpoint_hooks import split_checkpoint
from kpu_mm.registry import MODELS
from tests.runs import ROOT

CLASSES = ['square', 'bar', 'stripe']
META = dict(classes=CLASSES)
INFERENCERS = dict(
    coco=(DetectionInferencer, 'coco/val'),
    ade20k=(SegmentationInferencer, 'ade20k/images/val'),
    imagenet=(ClassificationInferencer, 'imagenet/val/*/*'),
)


def randomise(model):
    for name, p in model.named_parameters():
        if 'sentinel' not in name:
            p.data += 0.05 * torch.randn_like(p)
    return model.state_dict()


@pytest.fixture(scope='module')
def checkpoint(labeled, tmp_path_factory):
    """Of the joint run, at random weights."""
    torch.manual_seed(0)
    model = MODELS.build(Config.fromfile(labeled / 'joint.py').model)
    path = tmp_path_factory.mktemp('trained') / 'iter_4.pth'
    meta = dict(dataset_meta=dict.fromkeys(INFERENCERS, META))
    torch.save(dict(state_dict=randomise(model), meta=meta), path)
    return path


@pytest.fixture(scope='module')
def single(checkpoint):
    """The checkpoint of one task's own run."""

    def write(task):
        path = checkpoint.with_name(f'{task}.pth')
        content = torch.load(checkpoint)
        torch.save(split_checkpoint(content, task), path)
        return path

    return write


@pytest.fixture
def infer(labeled, checkpoint):
    def run(task, **kwargs):
        cls, images = INFERENCERS[task]
        inferencer = cls(labeled / f'{task}.py', checkpoint, device='cpu')
        return inferencer(str(labeled / images), **kwargs)

    return run


def test_detections_are_mmdet_s(infer, single, labeled):
    from mmdet.apis import DetInferencer

    result = infer('coco', threshold=-1, return_vis=True)
    theirs = DetInferencer(str(labeled / 'coco.py'), str(single('coco')), device='cpu')
    paths = [p['img_path'] for p in result['predictions']]
    assert len(paths) == 3
    expected = theirs(paths)['predictions']
    for a, b in zip(result['predictions'], expected, strict=True):
        assert len(a['scores']) == 5
        for key in ('bboxes', 'scores', 'labels'):
            assert a[key] == b[key]
        assert a['names'] == [CLASSES[i] for i in b['labels']]
    for picture, path in zip(result['visualization'], paths, strict=True):
        assert (picture != cv2.imread(path)[..., ::-1]).any()


@pytest.fixture
def build_mmseg(single):
    def build(cfg):
        from mmseg.apis import MMSegInferencer

        cfg.visualizer = dict(type='SegLocalVisualizer')
        return MMSegInferencer(
            cfg, str(single('ade20k')), classes=CLASSES, palette=[[0, 0, 0]] * 3, device='cpu'
        )

    return build


def test_label_maps_are_mmseg_s(infer, build_mmseg, labeled):
    result = infer('ade20k', score_maps='probability', return_vis=True)
    theirs = build_mmseg(Config.fromfile(labeled / 'ade20k.py'))
    for found in result['predictions']:
        sample = theirs(found['img_path'], return_datasamples=True)
        labels = sample.pred_sem_seg.data[0].numpy()
        assert (found['sem_seg'] == labels).all()
        assert len(np.unique(labels)) > 1
        logits = sample.seg_logits.data
        torch.testing.assert_close(torch.from_numpy(found['scores']), logits.softmax(0))
        assert found['names'] == CLASSES
    assert result['visualization'][0].shape == (64, 64, 3)


def test_corners_are_aligned_as_the_head_says(labeled, checkpoint, build_mmseg):
    cfg = Config.fromfile(labeled / 'ade20k.py')
    cfg.model.decode_head.align_corners = True
    # not the size of the network's input
    image = np.random.default_rng(0).integers(0, 256, (150, 210, 3), np.uint8)
    infer = SegmentationInferencer(cfg, checkpoint, device='cpu')
    (found,) = infer(image, score_maps='probability')['predictions']
    sample = build_mmseg(cfg)(image, return_datasamples=True)
    assert (found['sem_seg'] == sample.pred_sem_seg.data[0].numpy()).all()
    expected = sample.seg_logits.data.softmax(0)
    torch.testing.assert_close(torch.from_numpy(found['scores']), expected)


def test_padding_is_left_out(labeled, checkpoint, build_mmseg):
    """A data preprocessor that pads, and an image that it must pad."""
    cfg = Config.fromfile(labeled / 'ade20k.py')
    cfg.model.data_preprocessor.update(size=None, test_cfg=dict(size_divisor=48))
    image = np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8)
    infer = SegmentationInferencer(cfg, checkpoint, device='cpu')
    (found,) = infer(image)['predictions']
    sample = build_mmseg(cfg)(image, return_datasamples=True)
    assert sample.pred_sem_seg.shape == (50, 70)
    assert max(sample.img_padding_size) > 0
    labels = sample.pred_sem_seg.data[0].numpy()
    assert (found['sem_seg'] == labels).all()


def test_classes_are_mmpretrain_s(infer, single, labeled):
    from mmpretrain import ImageClassificationInferencer

    result = infer('imagenet', return_vis=True)
    theirs = ImageClassificationInferencer(
        str(labeled / 'imagenet.py'), str(single('imagenet')), device='cpu'
    )
    paths = [p['img_path'] for p in result['predictions']]
    for a, b in zip(result['predictions'], theirs(paths), strict=True):
        order = np.argsort(-b['pred_scores'], kind='stable')
        assert a['labels'] == order.tolist()
        assert a['scores'] == pytest.approx(b['pred_scores'][order])
        assert a['names'][0] == b['pred_class']
    assert len(infer('imagenet', topk=1)['predictions'][0]['names']) == 1


def test_images_are_normalised_by_a_data_preprocessor_beside_the_model(infer, labeled, checkpoint):
    """As MMPretrain's configs have it."""
    cfg = Config.fromfile(labeled / 'imagenet.py')
    cfg.data_preprocessor = cfg.model.pop('data_preprocessor')
    images = str(labeled / INFERENCERS['imagenet'][1])
    beside = ClassificationInferencer(cfg, checkpoint, device='cpu')
    assert beside.model.data_preprocessor.mean is not None
    for a, b in zip(beside(images)['predictions'], infer('imagenet')['predictions'], strict=True):
        assert a['scores'] == b['scores'] and a['labels'] == b['labels']


@pytest.mark.slow
@pytest.mark.parametrize('task', INFERENCERS)
def test_results_are_those_of_tools_test(task, infer, labeled, checkpoint, monkeypatch, tmp_path):
    tool = str(ROOT / 'tools' / 'test.py')
    found = tmp_path / 'found.pkl'
    command = [tool, labeled / f'{task}.py', checkpoint, '--out', found]
    command += ['--work-dir', tmp_path]
    monkeypatch.setattr(sys, 'argv', list(map(str, command)))
    runpy.run_path(tool, run_name='__main__')
    samples = {s['img_path']: s for s in pickle.loads(found.read_bytes())}
    ask = dict(coco=dict(threshold=-1)).get(task, {})
    for ours in infer(task, **ask)['predictions']:
        theirs = samples[ours['img_path']]
        if task == 'coco':
            boxes = theirs['pred_instances']
            assert ours['scores'] == pytest.approx(boxes['scores'].tolist())
            np.testing.assert_allclose(ours['bboxes'], boxes['bboxes'], rtol=0, atol=1e-3)
        elif task == 'ade20k':
            labels = theirs['pred_sem_seg']['data'][0].numpy()
            assert (ours['sem_seg'] == labels).mean() > 0.999
        else:
            scores = theirs['pred_score'].sort(descending=True).values
            assert ours['scores'] == pytest.approx(scores.tolist(), rel=1e-5)


def test_masks_of_mask_dino(tmp_path, pictures):
    """A config by its name; MMDetection's own Inferencer beside it."""
    from mmdet.apis import DetInferencer

    name = 'downstream/coco/mask-dino_kpu-tiny_cpu'
    path = str(ROOT / 'configs' / f'{name}.py')
    torch.manual_seed(0)
    model = MODELS.build(Config.fromfile(path).model)
    weights = tmp_path / 'iter_1.pth'
    state = randomise(model)
    torch.save(dict(state_dict=state, meta={}), weights)
    infer = DetectionInferencer(name, weights, device='cpu')
    result = infer(pictures / 'c.png', threshold=0, return_vis=True)
    (found,) = result['predictions']
    with pytest.warns(UserWarning, match='COCO classes by default'):
        theirs = DetInferencer(path, str(weights), device='cpu')
    (expected,) = theirs(str(pictures / 'c.png'))['predictions']
    assert len(found['masks']) == len(found['scores']) > 5
    order = np.argsort(-np.array(expected['scores']), kind='stable')
    for i, k in enumerate(order):
        assert found['masks'][i] == expected['masks'][k]
    assert coco_mask.decode(found['masks'][0]).shape == (150, 80)
    assert 'person' in infer.names
    assert result['visualization'][0].shape == (150, 80, 3)


@pytest.mark.parametrize(
    'asked, text, is_list',
    [(dict(texts='a cat'), 'a cat', False), (dict(classes=['cat', 'dog']), ('cat', 'dog'), True)],
)
def test_text_reaches_detectors_that_read_it(
    asked, text, is_list, labeled, checkpoint, monkeypatch
):
    """MMDetection's GroundingDINO finds it in the samples, and names boxes."""
    infer = DetectionInferencer(labeled / 'coco.py', checkpoint, device='cpu')
    test_step = infer.model.test_step

    def read_and_name(data):
        (sample,) = data['data_samples']
        assert sample.text == text
        assert sample.custom_entities == is_list
        (sample,) = test_step(data)
        count = len(sample.pred_instances)
        sample.pred_instances.label_names = [f'name {i}' for i in range(count)]
        return [sample]

    monkeypatch.setattr(infer.model, 'test_step', read_and_name)
    image = labeled / 'coco/val/1.png'
    (found,) = infer(image, threshold=-1, **asked)['predictions']
    assert set(found['names']) == {f'name {i}' for i in range(5)}
    with pytest.raises(ValueError, match='not both'):
        infer(image, classes=['cat'], texts='a cat')


def test_panoptic_maps(labeled, checkpoint, monkeypatch):
    """A detector that gives maps and no boxes."""
    infer = DetectionInferencer(labeled / 'coco.py', checkpoint, device='cpu')
    maps = torch.arange(12).view(1, 3, 4)

    def segment(data):
        (sample,) = data['data_samples']
        sample.pred_panoptic_seg = PixelData(sem_seg=maps)
        return [sample]

    monkeypatch.setattr(infer.model, 'test_step', segment)
    (found,) = infer(labeled / 'coco/val/1.png')['predictions']
    assert set(found) == {'img_path', 'panoptic_seg'}
    assert found['panoptic_seg'].tolist() == maps[0].tolist()


def test_clear_messages(labeled, checkpoint, tmp_path):
    config = labeled / 'coco.py'
    with pytest.raises(ValueError, match='pass the checkpoint as weights'):
        DetectionInferencer(config)
    with pytest.raises(FileNotFoundError, match='does not exist'):
        DetectionInferencer(config, tmp_path / 'nowhere.pth')
    with pytest.raises(ValueError, match='download the file'):
        DetectionInferencer('zero_shot/coco/mmdet-grounding-dino_kpu-vitb')
    state = torch.load(checkpoint)
    del state['state_dict']['tasks.coco.bbox_head.conv_cls.bias']
    torch.save(state, tmp_path / 'other.pth')
    with pytest.raises(ValueError, match=r'does not fit.*bbox_head\.conv_cls'):
        DetectionInferencer(config, tmp_path / 'other.pth')
    state['meta'] = {}
    torch.save(state, tmp_path / 'nameless.pth')
    with pytest.raises(ValueError, match='names the classes; set test_data'):
        ClassificationInferencer(labeled / 'imagenet.py', tmp_path / 'nameless.pth')


def test_names_are_those_of_the_checkpoint(labeled, single, tmp_path):
    path = single('ade20k')
    cfg = Config.fromfile(labeled / 'ade20k.py')
    metainfo = cfg.test_dataloader.dataset.metainfo
    metainfo.classes = CLASSES[::-1]
    with pytest.raises(ValueError, match=r"0 is 'square' in the checkpoint.*\('square', 'bar'"):
        SegmentationInferencer(cfg, path, device='cpu')
    # A checkpoint without names leaves them to the config.
    state = torch.load(path)['state_dict']
    torch.save(dict(state_dict=state), tmp_path / 'weights.pth')
    found = SegmentationInferencer(cfg, tmp_path / 'weights.pth', device='cpu')
    assert found.names == CLASSES[::-1] and len(found.palette) == 3
    metainfo.update(classes=['square', 'bar'], palette=[[0, 0, 0]] * 2)
    with pytest.raises(ValueError, match='has 2, but decode_head has num_classes=3'):
        SegmentationInferencer(cfg, tmp_path / 'weights.pth', device='cpu')


@pytest.mark.parametrize('task', ['coco', 'ade20k'])
def test_colours_are_those_of_the_classes(task, labeled, single, tmp_path):
    content = torch.load(single(task))
    palette = [[255, 0, 0], [0, 255, 0], [0, 0, 255]]
    content['meta']['dataset_meta'] = dict(META, palette=palette)
    torch.save(content, tmp_path / 'coloured.pth')
    cls, images = INFERENCERS[task]
    infer = cls(labeled / f'{task}.py', tmp_path / 'coloured.pth', device='cpu')
    infer(str(labeled / images), return_vis=True)
    assert infer.visualizer.dataset_meta['palette'] == [tuple(color) for color in palette]


@pytest.mark.parametrize('task', INFERENCERS)
def test_extreme_shapes_work_or_are_named(task, labeled, checkpoint):
    infer = INFERENCERS[task][0](labeled / f'{task}.py', checkpoint, 'cpu', show_progress=False)
    for shape in ((1, 1), (1, 90), (90, 1)):
        try:
            found = infer(np.zeros((*shape, 3), np.uint8), return_vis=True)
            assert found['visualization'][0].shape == (*shape, 3)
        except ValueError as error:
            assert "'image_000000' is" in str(error) and 'KPUBackbone needs 32' in str(error)
            assert task != 'coco'  # its images are padded
