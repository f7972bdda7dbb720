import copy
import math

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import OptimWrapper

from kpu_mm.datasets import MultiStreamLoader
from kpu_mm.engine.optimizers import AutocastOptimWrapper
from kpu_mm.models import MultiTaskModel
from kpu_mm.registry import MODELS

TASKS = ('coco', 'ade20k', 'imagenet')


@pytest.fixture(scope='module')
def config(labeled):
    return Config.fromfile(labeled / 'joint.py')


@pytest.fixture(scope='module')
def batch(config):
    return next(iter(MultiStreamLoader(config.train_dataloader, seed=1)))


def build(config, **options):
    torch.manual_seed(0)
    model = MODELS.build({**config.model, **options})
    model.init_weights()
    # leave the initial values, where gammas are zero
    for name, p in model.named_parameters():
        if 'sentinel' not in name:
            p.data += 0.02 * torch.randn_like(p)
    return model.train()


def single(labeled, task, state, **options):
    """The task's own model, with the joint model's weights."""
    cfg = Config.fromfile(labeled / f'{task}.py')
    model = MODELS.build({**cfg.model, '_scope_': cfg.default_scope, **options})
    own = {
        key.removeprefix(f'tasks.{task}.'): value
        for key, value in state.items()
        if key.startswith(('backbone.', f'tasks.{task}.'))
    }
    model.load_state_dict(own)  # strictly
    return model.train()


def test_tasks_over_a_vit_are_the_single_models(config, batch, labeled):
    """Each with a pyramid of its own, which its checkpoint brings along."""
    vit = dict(type='kpu_mm.ViTBackbone', sentinel=config.model.backbone.sentinel)
    model = build(config, backbone=dict(out_type='features', **vit))
    logs, _ = losses_and_gradients(model, batch)
    for task in ('coco', 'ade20k'):
        alone = single(labeled, task, model.state_dict(), backbone=vit)
        assert len(alone.backbone.levels) == 4
        values, _ = losses_and_gradients(alone, batch['streams'][task])
        for key, value in values.items():
            assert logs[f'{task}/{key}'] == pytest.approx(float(value), rel=1e-5)


def losses_and_gradients(model, batch):
    model.zero_grad()
    data = model.data_preprocessor(copy.deepcopy(batch), True)
    loss, logs = model.parse_losses(model._run_forward(data, mode='loss'))
    loss.backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
    return logs, gradients


def test_gradient_is_the_weighted_sum_of_the_single_tasks(config, batch, labeled):
    weights = dict(coco=1.0, ade20k=0.5, imagenet=3.0)
    model = build(config, weights=weights)
    logs, gradients = losses_and_gradients(model, batch)
    expected = {name: torch.zeros_like(g) for name, g in gradients.items()}
    total = 0.0
    for task in TASKS:
        alone = single(labeled, task, model.state_dict())
        values, grads = losses_and_gradients(alone, batch['streams'][task])
        total += weights[task] * float(values['loss'])
        for key, value in values.items():
            assert logs[f'{task}/{key}'] == pytest.approx(float(value), rel=1e-5)
        for name, grad in grads.items():
            assert grad is not None, (task, name)
            owned = name.startswith('backbone.')
            name = name if owned else f'tasks.{task}.{name}'
            expected[name] += weights[task] * grad
    assert logs['loss'] == pytest.approx(total, rel=1e-5)
    for name, gradient in gradients.items():
        assert gradient is not None, name  # DDP would refuse it
        torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=1e-6)


def test_one_stream_at_a_time_takes_the_same_step(config, batch):
    states = []
    for backward in ('joint', 'per_stream'):
        model = build(config, backward=backward)
        optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
        model.train_step(copy.deepcopy(batch), OptimWrapper(optimizer))
        states.append(model.state_dict())
    for name, value in states[0].items():
        torch.testing.assert_close(value, states[1][name], rtol=1e-4, atol=1e-6)


def test_a_bfloat16_step(config, batch):
    model = build(config)
    before = [p.clone() for p in model.parameters() if p.requires_grad]
    trained = [p for p in model.parameters() if p.requires_grad]
    wrapper = AutocastOptimWrapper(torch.optim.SGD(trained, lr=0.1))
    logs = model.train_step(copy.deepcopy(batch), wrapper)
    assert all(math.isfinite(value) for value in logs.values())
    assert all(p.dtype == torch.float32 for p in trained)
    assert all(torch.isfinite(p).all() for p in trained)
    # a gradient may be lost to rounding here and there
    moved = [not torch.equal(p, old) for p, old in zip(trained, before, strict=True)]
    assert sum(moved) > 0.9 * len(moved)


def test_the_backbone_is_there_once(config):
    model = build(config)
    names = [name for name, _ in model.named_parameters()]
    assert len(names) == len({id(p) for p in model.parameters()})
    assert not any('tasks' in n and 'backbone' in n for n in names)
    keys = model.state_dict().keys()
    assert not any('tasks' in k and 'backbone' in k for k in keys)
    # what copies the model (averaged weights) copies the sharing too
    twin = copy.deepcopy(model)
    assert twin.tasks['coco'].backbone._shared[0] is twin.backbone


def test_a_frozen_backbone_does_not_change_in_a_bit(config, batch):
    backbone = dict(config.model.backbone, frozen='all')
    backbone['norm_cfg'] = dict(type='BN')
    model = build(config, backbone=backbone)
    everything = dict(model.backbone.named_parameters())
    everything.update(model.backbone.named_buffers())
    before = {name: value.clone() for name, value in everything.items()}
    heads = {n: p.clone() for n, p in model.tasks.named_parameters()}
    optimizer = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad], weight_decay=0.1
    )
    for _ in range(2):
        model.train()
        model.train_step(copy.deepcopy(batch), OptimWrapper(optimizer))
    assert any('running_mean' in name for name in before)
    for name, value in everything.items():
        assert torch.equal(value, before[name]), name
    for name, p in model.tasks.named_parameters():
        assert not torch.equal(p, heads[name]), name


def test_predictions_are_those_of_the_single_tasks(config, batch, labeled):
    model = build(config).eval()
    with torch.no_grad():
        joint = model.val_step(copy.deepcopy(batch))
        for task in TASKS:
            alone = single(labeled, task, model.state_dict()).eval()
            data = copy.deepcopy(batch['streams'][task])
            for a, b in zip(joint[task], alone.val_step(data), strict=True):
                for found, wanted in zip(numbers(task, a), numbers(task, b), strict=True):
                    assert torch.equal(found, wanted)


def numbers(task, sample):
    if task == 'coco':
        return sample.pred_instances.bboxes, sample.pred_instances.scores
    if task == 'ade20k':
        return (sample.seg_logits.data,)
    return (sample.pred_score,)


def test_a_backbone_of_any_toolbox_serves(batch):
    model = MultiTaskModel(
        backbone=dict(type='mmpretrain.ResNet', depth=18, out_indices=(0, 1, 2, 3)),
        tasks=dict(
            imagenet=dict(
                type='ImageClassifier',
                _scope_='mmpretrain',
                features=dict(out_indices=(3,)),
                neck=dict(type='GlobalAveragePooling'),
                head=dict(type='LinearClsHead', num_classes=3, in_channels=512),
            )
        ),
    )
    streams = dict(imagenet=batch['streams']['imagenet'])
    logs, gradients = losses_and_gradients(model, dict(streams=streams))
    assert logs['loss'] == logs['imagenet/loss'] > 0
    assert all(g is not None for g in gradients.values())


def test_wrong_options_are_named(config):
    with pytest.raises(ValueError, match='`tasks` is empty'):
        build(config, tasks={})
    with pytest.raises(ValueError, match=r"'segmentation'\] are no tasks"):
        build(config, weights=dict(segmentation=1.0))
    with pytest.raises(ValueError, match='choose from'):
        build(config, backward='both')
    with pytest.raises(ValueError, match="'coco' has a `backbone`"):
        build(config, tasks=dict(coco=dict(backbone=dict(type='ResNet'))))
    tasks = dict(imagenet=dict(config.model.tasks.imagenet, features=dict(out_type='summary')))
    with pytest.raises(ValueError, match='ResNet gives a pyramid only'):
        build(config, backbone=dict(type='mmpretrain.ResNet', depth=18), tasks=tasks)
