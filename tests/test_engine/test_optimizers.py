import pytest
import torch
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS
from mmpretrain.engine.optimizers import LearningRateDecayOptimWrapperConstructor
from mmpretrain.registry import MODELS
from rehearsal.stand_ins import fake_gpu

import kpu_mm.engine.optimizers  # noqa: F401
from kpu_mm.engine.optimizers import AutocastOptimWrapper, LayerDecayConstructor

TINY = dict(
    model_type='dinov2',
    hidden_size=48,
    num_hidden_layers=4,
    num_attention_heads=4,
    image_size=56,
    patch_size=14,
)
ADAMW = dict(optimizer=dict(type='AdamW', lr=1.0, weight_decay=0.05))


def build(frozen):
    return MODELS.build(
        dict(
            type='ImageClassifier',
            backbone=dict(
                type='kpu_mm.KPUBackbone',
                sentinel=dict(TINY),
                inplanes=8,
                frozen=frozen,
                out_type='summary',
            ),
            head=dict(type='LinearClsHead', num_classes=5, in_channels=48),
        )
    )


def settings(constructor, model):
    """Rate and decay of every parameter."""
    names = {p: name for name, p in model.named_parameters()}
    groups = constructor(model).optimizer.param_groups
    found = {
        names[p]: (group['lr'], group['weight_decay']) for group in groups for p in group['params']
    }
    return found, len(groups)


def test_agrees_with_mmpretrains():
    model = build('none')
    paramwise = dict(layer_decay_rate=0.7, norm_decay_mult=0.0)
    ours, groups = settings(LayerDecayConstructor(ADAMW, paramwise), model)
    theirs, _ = settings(LearningRateDecayOptimWrapperConstructor(ADAMW, paramwise), model)
    assert ours.keys() == theirs.keys()
    for name, expected in theirs.items():
        assert ours[name] == pytest.approx(expected), name
    # six depths, with and without decay; the embedding has no norm
    assert groups == 11
    layer = 'backbone.sentinel.model.encoder.layer.1.mlp.fc1.weight'
    assert ours[layer] == pytest.approx((0.7**3, 0.05))
    assert ours['head.fc.weight'] == (1.0, 0.05)


def test_frozen_parameters_are_left_out():
    model = build('sentinel')
    found, groups = settings(LayerDecayConstructor(ADAMW, dict(layer_decay_rate=0.5)), model)
    assert set(found) == {name for name, p in model.named_parameters() if p.requires_grad}
    assert groups == 1


@pytest.mark.parametrize('rate', [None, 0, 1.5])
def test_bad_rate(rate):
    with pytest.raises(ValueError, match='layer_decay_rate is'):
        LayerDecayConstructor(ADAMW, dict(layer_decay_rate=rate))


def test_backbone_without_depths():
    model = torch.nn.Module()
    model.backbone = torch.nn.Linear(1, 1)
    constructor = LayerDecayConstructor(ADAMW, dict(layer_decay_rate=0.5))
    with pytest.raises(TypeError, match='a backbone Linear without'):
        constructor(model)


def construct(model, **kwargs):
    constructor = OPTIM_WRAPPER_CONSTRUCTORS.build(
        dict(
            type='kpu_mm.TrainableConstructor',
            optim_wrapper_cfg=dict(
                type='OptimWrapper', optimizer=dict(type='AdamW', lr=0.1, weight_decay=0.01)
            ),
            **kwargs,
        )
    )
    return constructor(model)


@pytest.mark.parametrize('paramwise', [None, dict(norm_decay_mult=0.0)])
def test_frozen_parameters_are_absent(paramwise):
    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Linear(3, 2))
    model[0].requires_grad_(False)
    groups = construct(model, paramwise_cfg=paramwise).param_groups
    held = {id(p) for group in groups for p in group['params']}
    # (MMEngine adds a parameter of its own to hold the base rate)
    assert held >= {id(p) for p in model[1].parameters()}
    assert not held & {id(p) for p in model[0].parameters()}


@pytest.mark.parametrize('paramwise', [None, dict(norm_decay_mult=0.0)])
def test_modules_that_want_no_weight_decay(paramwise):
    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Linear(3, 2))
    model[1].no_weight_decay = True
    optim_wrapper = construct(model, paramwise_cfg=paramwise)
    decays = {
        p: group['weight_decay']
        for group in optim_wrapper.optimizer.param_groups
        for p in group['params']
    }
    assert [decays[p] for p in model.parameters()] == [0.01, 0.01, 0, 0]


def stepped(model):
    """State of an optimiser after one step."""
    optimizer = construct(model).optimizer
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    optimizer.step()
    return optimizer.state_dict()


@pytest.mark.parametrize('paramwise', [None, dict(norm_decay_mult=0.0)])
def test_fused_on_a_gpu_and_no_waiting_after_resume(paramwise):
    state = stepped(torch.nn.Linear(2, 3))
    assert not state['param_groups'][0]['fused']
    with fake_gpu({}) as gpu:
        model = torch.nn.Linear(2, 3).to('cuda')
        optimizer = construct(model, paramwise_cfg=paramwise).optimizer
        assert all(group['fused'] for group in optimizer.param_groups)
        if paramwise is None:  # the groups are those of the state
            optimizer.load_state_dict(state)
        for p in model.parameters():
            p.grad = torch.zeros_like(p)
        gpu.forget()  # the load itself copies
        optimizer.step()
        assert all(group['fused'] for group in optimizer.param_groups)
        assert all(values['step'].is_cuda for values in optimizer.state.values())
        assert not gpu.waits


def test_kernels_are_those_of_the_machine():
    model = torch.nn.Linear(2, 3)
    optimizer, state = construct(model).optimizer, stepped(model)
    for group in state['param_groups']:
        group['fused'] = True
    optimizer.load_state_dict(state)
    assert not any(group['fused'] for group in optimizer.param_groups)


def test_a_gpu_without_bfloat16_is_refused(monkeypatch):
    optimizer = construct(torch.nn.Linear(2, 2)).optimizer
    AutocastOptimWrapper(optimizer)  # on the CPU
    with fake_gpu({}):
        AutocastOptimWrapper(optimizer)
        monkeypatch.setattr('torch.cuda.is_bf16_supported', lambda including_emulation: False)
        monkeypatch.setattr('torch.cuda.get_device_name', lambda: 'Tesla V100')
        with pytest.raises(RuntimeError, match='Tesla V100 does not compute in bfloat16: set opt'):
            AutocastOptimWrapper(optimizer)


def test_nothing_to_train():
    model = torch.nn.Linear(2, 2).requires_grad_(False)
    with pytest.raises(ValueError, match='every parameter'):
        construct(model)
