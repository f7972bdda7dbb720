import pytest
import torch
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS

import kpu_mm.engine  # noqa: F401


def construct(model, **kwargs):
    constructor = OPTIM_WRAPPER_CONSTRUCTORS.build(
        dict(
            type='kpu_mm.TrainableConstructor',
            optim_wrapper_cfg=dict(
                type='OptimWrapper',
                optimizer=dict(type='AdamW', lr=0.1, weight_decay=0.01),
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


def test_nothing_to_train():
    model = torch.nn.Linear(2, 2).requires_grad_(False)
    with pytest.raises(ValueError, match='every parameter'):
        construct(model)
