"""The configs of joint runs: composed of the single ones, and trainable."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from kpu_mm.datasets import MultiStreamLoader
from kpu_mm.registry import MODELS

DOWNSTREAM = Path(__file__).parents[1] / 'configs' / 'downstream'
SINGLES = dict(
    coco='coco/mask-dino_kpu-vitb_frozen-80k.py',
    ade20k='ade20k/upernet_kpu-vitb_frozen-80k.py',
    imagenet='imagenet/linear_kpu-vitb.py',
)


@pytest.mark.parametrize(
    ('name', 'frozen', 'steps'),
    [
        ('kpu-vitb_frozen-80k', 'all', 80_000),
        ('kpu-vitb_learnable-200k', 'sentinel', 200_000),
        ('kpu-vitb_finetune-200k', 'none', 200_000),
    ],
)
def test_a_joint_run_is_the_single_ones_together(name, frozen, steps):
    joint = Config.fromfile(DOWNSTREAM / 'multitask' / f'{name}.py')
    assert joint.model.backbone.frozen == frozen
    assert joint.train_cfg.max_iters == joint.param_scheduler.T_max == steps
    assert list(joint.model.tasks) == list(SINGLES)
    for task, path in SINGLES.items():
        single = Config.fromfile(DOWNSTREAM / path)
        backbone = single.model.pop('backbone')
        model = joint.model.tasks[task]
        features = model.pop('features', {})
        assert features.get('out_type') == backbone.pop('out_type', None)
        assert model == single.model
        for part in ('train_dataloader', 'val_dataloader', 'val_evaluator'):
            assert joint[part][task] == single[part], (part, task)
        assert joint.optim_wrapper.optimizer == single.optim_wrapper.optimizer


@pytest.mark.slow
def test_the_trial_takes_a_step(labeled):
    cfg = Config.fromfile(DOWNSTREAM / 'multitask' / 'kpu-tiny_cpu.py')
    loaders = cfg.train_dataloader
    for task, loader in loaders.items():
        loader.update(batch_size=2, num_workers=0, persistent_workers=False)
        loader.dataset.data_root = str(labeled / task)
    names = ('square', 'bar', 'stripe')
    loaders.coco.dataset.update(
        ann_file='train.json', data_prefix=dict(img='train'), metainfo=dict(classes=names)
    )
    loaders.ade20k.dataset.update(
        type='BaseSegDataset',
        img_suffix='.png',
        seg_map_suffix='.png',
        reduce_zero_label=False,
        data_prefix=dict(img_path='images/train', seg_map_path='annotations/train'),
        metainfo=dict(classes=names, palette=[[i] * 3 for i in range(3)]),
    )
    loaders.imagenet.dataset.update(type='CustomDataset', data_prefix='train')
    loaders.imagenet.dataset.pop('split')
    batch = next(iter(MultiStreamLoader(loaders)))
    torch.manual_seed(0)
    model = MODELS.build(cfg.model).train()
    model.init_weights()
    inputs = model.data_preprocessor(batch, True)
    torch.manual_seed(1)
    losses = model(**inputs)
    losses['loss'].backward()
    assert torch.isfinite(losses['loss'])
    assert {'coco/loss', 'ade20k/loss', 'imagenet/loss'} <= losses.keys()
    for name, p in model.named_parameters():
        # DDP would refuse a parameter without gradient
        assert not p.requires_grad or p.grad is not None, name
    # the same points and noise in the precision of the full configs
    torch.manual_seed(1)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        rounded = model(**inputs)
    for name, loss in losses.items():
        if name.endswith('loss'):
            assert rounded[name].dtype == torch.float32
            assert rounded[name].item() == pytest.approx(loss.item(), rel=0.02), name
