"""Every Mask DINO config loads data, takes a step, predicts, is measured."""

import json
import sys
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmdet.evaluation.functional import panoptic_utils
from mmdet.evaluation.metrics import coco_panoptic_metric
from mmdet.registry import DATASETS
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.evaluator import Evaluator
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from PIL import Image

from kpu_mm.registry import MODELS, RUNNERS

DOWNSTREAM = Path(__file__).parents[2] / 'configs' / 'downstream'
# The rows of the baselines differ from KPU's by their backbones alone.
PATHS = sorted(
    path
    for backbone in ('kpu', 'r50', 'swin')
    for path in DOWNSTREAM.glob(f'*/mask-dino_{backbone}*.py')
    if 'panoptic' not in path.stem
)
CLASSES = ('square', 'bar', 'stripe')
SIZES = {1024: 128, 512: 64, 800: 64, 1333: 96, 2048: 128}


def smaller(part):
    """The same config with the sizes of images scaled down."""
    if isinstance(part, dict):
        return {key: smaller(value) for key, value in part.items()}
    if isinstance(part, list | tuple):
        return type(part)(map(smaller, part))
    return SIZES.get(part, part) if isinstance(part, int) else part


def small_backbone(backbone, dinov2_dir):
    """The same kind of backbone with few channels: its config and them."""
    kind = backbone.type.split('.')[-1]
    backbone.init_cfg = None
    if kind == 'ResNet':
        backbone.update(depth=18, base_channels=8)
        return [8, 16, 32, 64]
    if kind == 'SwinTransformer':
        backbone.update(embed_dims=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2], window_size=4)
        return [8, 16, 32, 64]
    assert kind == 'KPUBackbone'
    backbone.update(sentinel=str(dinov2_dir), inplanes=8, num_interactions=2)
    backbone.norm_cfg = dict(type='GN', num_groups=4)
    return [48] * 4


@pytest.fixture
def shrink(dinov2_dir, labeled):
    def apply(path):
        cfg = Config.fromfile(path)
        init_default_scope(cfg.default_scope)
        head = cfg.model.bbox_head
        channels = small_backbone(cfg.model.backbone, dinov2_dir)
        head.pixel_decoder.update(
            in_channels=channels, embed_dims=64, num_layers=1, ffn_channels=32
        )
        head.decoder.update(num_layers=2, ffn_channels=32)
        head.queries.num_queries = 10
        head.denoising.num_queries = 10
        cfg.model.train_cfg.num_points = 64
        semantic = path.parent.name == 'ade20k'
        kind = 'num_stuff_classes' if semantic else 'num_things_classes'
        head[kind] = len(CLASSES)
        for split, loader in (('train', cfg.train_dataloader), ('val', cfg.val_dataloader)):
            data = loader.dataset
            data.pipeline = smaller(data.pipeline)
            data.metainfo = dict(classes=CLASSES)
            if semantic:
                data.data_root = str(labeled / 'ade20k')
                data.img_suffix = '.png'
                data.data_prefix = dict(
                    img_path=f'images/{split}', seg_map_path=f'annotations/{split}'
                )
            else:
                data.data_root = str(labeled / 'coco')
                data.ann_file = f'{split}.json'
                data.data_prefix = dict(img=split)
        if isinstance(cfg.val_evaluator, dict) and not semantic:
            cfg.val_evaluator.ann_file = str(labeled / 'coco/val.json')
        return cfg

    return apply


def step_and_predict(cfg):
    """Losses of one step on training data, and all validation metrics."""
    torch.manual_seed(0)
    model = MODELS.build(cfg.model).train()
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    batch = pseudo_collate([dataset[0], dataset[1]])
    batch = model.data_preprocessor(batch, training=True)
    losses = model(**batch, mode='loss')
    total = sum(losses.values())
    total.backward()
    assert torch.isfinite(total)

    val = DATASETS.build(cfg.val_dataloader.dataset)
    evaluator = Evaluator(cfg.val_evaluator)
    evaluator.dataset_meta = val.metainfo
    for sample in val:
        batch = pseudo_collate([sample])
        with torch.no_grad():
            evaluator.process(model.eval().test_step(batch), batch)
    return losses, evaluator.evaluate(len(val))


@pytest.mark.parametrize('path', PATHS, ids=lambda path: path.stem)
def test_config_from_data_to_metric(path, shrink):
    cfg = shrink(path)
    losses, metrics = step_and_predict(cfg)
    # final, 2 auxiliary, the encoder's, final and 2 auxiliary of denoising
    learned = cfg.model.bbox_head.queries.type == 'kpu_mm.LearnedQueries'
    assert len(losses) == (5 if learned else 7) * 5
    name = 'mIoU' if learned else 'coco/segm_mAP'
    assert 0 <= metrics[name] <= 100


def test_ade20k_has_one_order_everywhere(monkeypatch):
    cfg = Config.fromfile(DOWNSTREAM / 'ade20k/mask-dino_r50_160k.py')
    init_default_scope(cfg.default_scope)
    names = ['b.jpg', 'sub/a.jpg', 'a.jpg']  # as a file system may list them
    monkeypatch.setattr('mmengine.fileio.list_dir_or_file', lambda **_: iter(names))
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        data = DATASETS.build(loader.dataset)
        paths = [data.get_data_info(i)['img_path'] for i in range(len(data))]
        assert len(paths) == 3 and paths == sorted(paths)


def write_panoptic(labeled, folder):
    """Segments for the images of ``labeled``: its objects, but for the last, and the rest."""
    for split in ('train', 'val'):
        data = json.loads((labeled / 'coco' / f'{split}.json').read_text())
        (folder / split).mkdir()
        stuff = len(CLASSES) + 1
        for note in data['annotations']:
            x, y, w, h = note.pop('bbox')
            numbers = np.full((64, 64, 3), (2, 0, 0), np.uint8)
            numbers[y : y + h, x : x + w, 0] = 1
            note['file_name'] = f'{note["image_id"]}.png'
            Image.fromarray(numbers).save(folder / split / note['file_name'])
            note['segments_info'] = [
                dict(
                    id=number,
                    category_id=category,
                    bbox=box,
                    area=int((numbers[..., 0] == number).sum()),
                    iscrowd=0,
                )
                for number, category, box in (
                    (1, note['category_id'], [x, y, w, h]),
                    (2, stuff, [0, 0, 64, 64]),
                )
            ]
        if split == 'train':
            del note['segments_info'][0]
        data['categories'].append(dict(id=stuff, name='ground'))
        for category in data['categories']:
            category['isthing'] = int(category['id'] != stuff)
        (folder / f'{split}.json').write_text(json.dumps(data))


class PQStat(defaultdict):
    """As panopticapi's: segments that match, and that do not, for each category."""

    def __init__(self):
        super().__init__(lambda: SimpleNamespace(tp=0, fp=0, fn=0, iou=0.0))

    def __iadd__(self, other):
        for category, counts in other.items():
            for key, value in vars(counts).items():
                setattr(self[category], key, getattr(self[category], key) + value)
        return self

    def pq_average(self, categories, isthing):
        kept = [
            k for k, c in categories.items() if isthing is None or isthing == bool(c['isthing'])
        ]
        values = [c.iou / max(1, c.tp + c.fp / 2 + c.fn / 2) for c in (self[k] for k in kept)]
        mean = sum(values) / len(values)
        return dict(pq=mean, sq=mean, rq=mean, n=len(values)), {}


def rgb2id(color):
    return color.astype(np.int32) @ (1, 256, 65536)


def id2rgb(number):
    return np.stack([number // 256**k % 256 for k in range(3)], -1).astype(np.uint8)


@pytest.fixture
def panopticapi(monkeypatch):
    """What MMDetection takes from panopticapi, which the package index does not have."""
    parts = dict(PQStat=PQStat, VOID=0, OFFSET=256**3, rgb2id=rgb2id, id2rgb=id2rgb)
    api = SimpleNamespace(utils=SimpleNamespace(**parts), evaluation=SimpleNamespace(**parts))
    for name, module in {'': api, '.utils': api.utils, '.evaluation': api.evaluation}.items():
        monkeypatch.setitem(sys.modules, f'panopticapi{name}', module)
    for user in (panoptic_utils, coco_panoptic_metric):
        for name, part in dict(parts, panopticapi=api).items():
            monkeypatch.setattr(user, name, part, raising=False)


def run(cfg, work_dir):
    """Train as the config does, its hooks included, and validate: runner and metrics."""
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        loader.update(num_workers=0, persistent_workers=False)
    cfg.update(work_dir=str(work_dir), test_dataloader=None, test_evaluator=None, test_cfg=None)
    cfg.optim_wrapper.type = 'OptimWrapper'
    cfg.default_hooks.checkpoint = None
    cfg.train_cfg.update(max_iters=2, val_interval=3)
    runner = RUNNERS.get(cfg.runner_type).from_cfg(cfg)
    runner.train()
    return runner, runner.val()


@pytest.fixture
def panoptic(panopticapi, shrink, labeled, tmp_path):
    """The panoptic config with small images, of which one has no thing."""
    cfg = shrink(DOWNSTREAM / 'coco/mask-dino_r50_panoptic_50e.py')
    write_panoptic(labeled, tmp_path)
    cfg.model.bbox_head.num_stuff_classes = 1
    for split, loader in (('train', cfg.train_dataloader), ('val', cfg.val_dataloader)):
        loader.dataset.update(
            data_root='',
            ann_file=str(tmp_path / f'{split}.json'),
            data_prefix=dict(img=str(labeled / 'coco' / split), seg=str(tmp_path / split)),
            metainfo=dict(
                classes=(*CLASSES, 'ground'), thing_classes=CLASSES, stuff_classes=('ground',)
            ),
        )
    panoptic, instances = cfg.val_evaluator
    panoptic.ann_file = str(tmp_path / 'val.json')
    panoptic.seg_prefix = str(tmp_path / 'val')
    instances.ann_file = str(labeled / 'coco/val.json')
    return cfg


def test_panoptic_config_trains_and_tests(panoptic, tmp_path):
    runner, metrics = run(panoptic, tmp_path / 'work')
    losses = [name for name in runner.message_hub.log_scalars if 'loss_' in name]
    assert len(losses) == 35
    assert {'coco_panoptic/PQ', 'coco/segm_mAP'} <= set(metrics)


def test_panoptic_images_may_have_no_thing(panoptic):
    data = DATASETS.build(panoptic.train_dataloader.dataset)
    assert len(data) == 6
    for _ in range(5):  # whatever the crop
        sample = data[5]['data_samples']
        assert len(sample.gt_instances) == 0
        assert len(CLASSES) in sample.gt_sem_seg.sem_seg


def test_semantic_config_trains_and_tests(shrink, tmp_path):
    cfg = shrink(DOWNSTREAM / 'ade20k/mask-dino_r50_160k.py')
    assert 0 <= run(cfg, tmp_path)[1]['mIoU'] <= 100


def test_optimiser_groups():
    cfg = Config.fromfile(DOWNSTREAM / 'coco/mask-dino_r50_4s_50e.py')
    init_default_scope(cfg.default_scope)
    cfg.model.backbone.init_cfg = None
    cfg.optim_wrapper.type = 'OptimWrapper'
    model = MODELS.build(cfg.model)
    optimiser = build_optim_wrapper(model, cfg.optim_wrapper).optimizer
    groups = {}
    for group in optimiser.param_groups:
        for param in group['params']:
            groups[param] = (group['lr'], group['weight_decay'])
    no_decay = {
        f'{name}.{leaf}'
        for name, module in model.bbox_head.named_modules()
        for leaf, _ in module.named_parameters(recurse=False)
        if isinstance(module, torch.nn.LayerNorm | torch.nn.GroupNorm)
    } | {'denoising.label_embedding.weight'}
    for name, param in model.bbox_head.named_parameters():
        assert groups[param] == (1e-4, 0.0 if name in no_decay else 0.05)
    for name, param in model.backbone.named_parameters():
        if param.requires_grad:
            assert groups[param] == (1e-5, 0.05), name
