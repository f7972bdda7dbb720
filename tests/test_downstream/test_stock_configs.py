"""The backbone in configs of the toolboxes, theirs and ours, takes a step."""

import copy
from itertools import cycle
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.hub import get_config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DefaultScope

from kpu_mm.models.backbones import sentinel_backbone
from kpu_mm.registry import MODELS
from tests.small_models import WIDTH, batch_of, build, shrink
from tests.small_vits import TIMM, TRANSFORMERS, small_vit

CONFIGS = Path(__file__).parents[2] / 'configs' / 'downstream'
STOCK = [
    'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py',
    'mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py',
    'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py',
    'mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py',
    'mmdet::mask2former/mask2former_r50_8xb2-lsj-50e_coco.py',
    'mmseg::upernet/upernet_r50_4xb4-160k_ade20k-512x512.py',
    'mmseg::segformer/segformer_mit-b0_8xb2-160k_ade20k-512x512.py',
    'mmpretrain::resnet/resnet50_8xb32_in1k.py',
]
OURS = sorted(
    path
    for pattern in (
        '*/*dinov2-adapter*.py',
        'ade20k/upernet_kpu-vitb*.py',
        'imagenet/linear*_kpu-vitb.py',
    )
    for path in CONFIGS.glob(pattern)
)


@pytest.mark.slow
@pytest.mark.parametrize('source', [*STOCK, *OURS], ids=lambda s: Path(str(s)).stem)
def test_trains_a_step_and_predicts(source, dinov2_dir, monkeypatch):
    # nobody's weights are downloaded: the backbone is ours
    cfg = get_config(source) if source in STOCK else Config.fromfile(source)
    model, optim_wrapper = build(shrink(cfg, dinov2_dir))
    before = copy.deepcopy(dict(model.named_parameters()))
    # a step would end by forgetting them
    monkeypatch.setattr(optim_wrapper, 'zero_grad', lambda **kwargs: None)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        losses = model.train().train_step(batch_of(cfg.default_scope), optim_wrapper)
        results = model.eval().test_step(batch_of(cfg.default_scope))
    assert np.isfinite(float(losses['loss']))
    frozen = cfg.model.backbone.get('frozen', 'sentinel')
    still = dict(all='backbone.', sentinel='backbone.sentinel.', none='-')
    for name, p in model.named_parameters():
        if name.startswith(still[frozen]):
            assert torch.equal(p, before[name]), name
        elif name.startswith('backbone.') and p.requires_grad:
            assert p.grad is not None, name
    moved = {n for n, p in before.items() if not torch.equal(p, model.get_parameter(n))}
    assert any(not name.startswith('backbone.') for name in moved)
    if frozen != 'all':
        assert 'backbone.prior.projections.1.weight' in moved
    check = dict(
        mmdet=lambda r: r.pred_instances.scores,
        mmseg=lambda r: r.seg_logits.data,
        mmpretrain=lambda r: r.pred_score,
    )[cfg.default_scope]
    assert len(results) == 2
    assert all(torch.isfinite(check(r)).all() for r in results)


# each family in one of the toolboxes' models
@pytest.mark.slow
@pytest.mark.parametrize(
    ('family', 'source'),
    [*zip([*TRANSFORMERS, *TIMM], cycle((STOCK[1], STOCK[4], STOCK[5])))],
    ids=lambda v: Path(v).stem,
)
def test_any_vit_trains_a_step(family, source, monkeypatch):
    cfg = shrink(get_config(source), small_vit(family, WIDTH), num_interactions=3)
    model, optim_wrapper = build(cfg)
    monkeypatch.setattr(optim_wrapper, 'zero_grad', lambda **kwargs: None)
    before = {n: p.clone() for n, p in model.backbone.named_parameters()}
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        losses = model.train().train_step(batch_of(cfg.default_scope), optim_wrapper)
    assert np.isfinite(float(losses['loss']))
    for name, p in model.backbone.named_parameters():
        assert (p.grad is not None) == p.requires_grad, name
        assert p.requires_grad or torch.equal(p, before[name]), name


def test_frozen_features_stay_bit_for_bit(dinov2_dir):
    """Parameters, buffers and the statistics of BatchNorm."""
    cfg = get_config(STOCK[5])
    norm = dict(type='BN')
    shrink(cfg, dinov2_dir, frozen='all', norm_cfg=norm)
    for head in (cfg.model.decode_head, cfg.model.auxiliary_head):
        head.update(channels=8, norm_cfg=norm)
    model, optim_wrapper = build(cfg)
    backbone = dict(model.backbone.named_parameters())
    backbone |= dict(model.backbone.named_buffers())
    assert any('running_mean' in name for name in backbone)
    before = copy.deepcopy(backbone)
    head = model.decode_head.conv_seg.weight.clone()
    model.train()
    for _ in range(3):
        model.train_step(batch_of('mmseg'), optim_wrapper)
    assert not torch.equal(model.decode_head.conv_seg.weight, head)
    for name, value in backbone.items():
        assert torch.equal(value, before[name]), name


def test_distilled_checkpoint_in_a_stock_config(dinov2_dir, tmp_path, monkeypatch):
    """Missing and unexpected keys are named."""
    backbone = dict(type='kpu_mm.KPUBackbone', inplanes=8, sentinel=str(dinov2_dir))
    source = MODELS.build(backbone)
    source.up.weight.data.fill_(0.5)
    state = {f'student.{k}': v for k, v in source.state_dict().items()}
    del state['student.level_embed']
    state['student.extra'] = torch.zeros(1)
    path = tmp_path / 'iter_1.pth'
    torch.save(dict(state_dict=state), path)
    cfg = get_config(STOCK[2])
    shrink(cfg, dinov2_dir, init_cfg=dict(type='Pretrained', checkpoint=str(path)))
    logged = []
    monkeypatch.setattr(sentinel_backbone, 'print_log', lambda text, **_: logged.append(text))
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(cfg.model)
        model.init_weights()
    assert (model.backbone.up.weight == 0.5).all()
    assert "missing keys ['level_embed']" in logged[0]
    assert "unexpected keys ['extra']" in logged[0]


def test_knn_config():
    """The backbone of the linear probe; its training set is the bank."""
    knn = Config.fromfile(CONFIGS / 'imagenet' / 'knn_kpu-vitb.py')
    linear = Config.fromfile(CONFIGS / 'imagenet' / 'linear_kpu-vitb.py')
    assert knn.model.backbone == linear.model.backbone
    bank = knn.test_cfg.bank_dataloader
    assert bank.dataset.split == 'train'
    assert knn.test_dataloader.dataset.split == 'val'
    assert bank.dataset.pipeline == knn.test_dataloader.dataset.pipeline


def test_the_papers_numbers():
    for name, iterations, frozen in (
        ('frozen-80k', 80_000, 'all'),
        ('learnable-200k', 200_000, 'sentinel'),
        ('finetune-200k', 200_000, 'none'),
    ):
        path = CONFIGS / 'ade20k' / f'upernet_kpu-vitb_{name}.py'
        cfg = Config.fromfile(path)
        assert cfg.train_cfg.max_iters == iterations
        assert cfg.param_scheduler.T_max == iterations
        assert cfg.model.backbone.frozen == frozen
        optimizer = cfg.optim_wrapper.optimizer
        assert (optimizer.type, optimizer.lr) == ('AdamW', 2e-4)
        assert optimizer.weight_decay == 0.05
        assert cfg.model.decode_head.type == 'UPerHead'
        assert cfg.model.auxiliary_head.type == 'FCNHead'


def test_a_teacher_learns_at_a_rate_of_its_own(grounding_dino_dir):
    cfg = Config.fromfile(CONFIGS / 'coco' / 'mask-dino_grounding-dino-swinb_finetune-200k.py')
    backbone = cfg.model.backbone
    backbone.update(embed_dims=8)
    backbone.teacher.source = str(grounding_dino_dir)
    model = torch.nn.ModuleDict(dict(backbone=MODELS.build(backbone), head=torch.nn.Linear(2, 2)))
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    rates = {id(p): g['lr'] for g in wrapper.optimizer.param_groups for p in g['params']}
    for name, parameter in model.named_parameters():
        assert rates[id(parameter)] == (2e-5 if '.tuned.' in name else 2e-4), name
