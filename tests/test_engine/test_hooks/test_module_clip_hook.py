import copy
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from torch import nn

from kpu_mm.engine import ModuleClipHook
from kpu_mm.registry import MODELS


class Hub(dict):
    def update_scalar(self, name, value):
        self.setdefault(name, []).append(float(value))


def run(model, max_norm, wrapper=OptimWrapper, **options):
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    return SimpleNamespace(
        model=model,
        optim_wrapper=wrapper(optimizer=optimizer, **options),
        message_hub=Hub(),
    ), ModuleClipHook(max_norm)


def linear_pair():
    """Two parts with gradients of norm 5 and 10 for the loss of `step`."""
    model = nn.ModuleDict(
        dict(a=nn.Linear(2, 1, bias=False), b=nn.Linear(2, 1, bias=False))
    )
    for part in model.values():
        nn.init.zeros_(part.weight)
    return model


def loss_of(model):
    a, b = (model[n].weight.flatten() for n in 'ab')
    return a @ torch.tensor([3.0, 4.0]) + b @ torch.tensor([6.0, -8.0])


def test_clips_what_is_named_and_nothing_else():
    model = linear_pair()
    runner, hook = run(model, {'a': 0.5})
    hook.before_train(runner)
    runner.optim_wrapper.update_params(loss_of(model))
    # down the gradient of norm 5, scaled to 0.5, and of norm 10, as it is
    torch.testing.assert_close(
        model['a'].weight, torch.tensor([[-0.3, -0.4]]), rtol=1e-5, atol=0
    )
    torch.testing.assert_close(model['b'].weight, torch.tensor([[-6.0, 8.0]]))
    assert runner.message_hub['train/grad_norm/a'] == pytest.approx([5.0])


def test_clips_the_sum_of_accumulated_gradients():
    model = linear_pair()
    runner, hook = run(model, {'b': 20.0}, accumulative_counts=2)
    hook.before_train(runner)
    wrapper = runner.optim_wrapper
    wrapper.initialize_count_status(model, 0, 2)
    for _ in range(2):
        wrapper.update_params(3 * loss_of(model))
    # twice half of 30
    assert runner.message_hub['train/grad_norm/b'] == pytest.approx([30.0])
    torch.testing.assert_close(
        model['b'].weight, torch.tensor([[-12.0, 16.0]]), rtol=1e-5, atol=0
    )


@pytest.mark.skipif(not torch.cuda.is_available(), reason='scales on CUDA')
def test_sees_unscaled_gradients_in_float16():
    model = linear_pair().cuda()
    runner, hook = run(model, {'a': 0.5}, AmpOptimWrapper)
    hook.before_train(runner)
    with runner.optim_wrapper.optim_context(model):
        loss = loss_of(model)
    runner.optim_wrapper.update_params(loss)
    assert runner.message_hub['train/grad_norm/a'] == pytest.approx([5.0])


def test_leaves_the_optimiser_as_it_was():
    model = linear_pair()
    runner, hook = run(model, {'a': 0.5})
    hook.before_train(runner)
    hook.after_train(runner)
    runner.optim_wrapper.update_params(loss_of(model))
    torch.testing.assert_close(model['a'].weight, torch.tensor([[-3.0, -4.0]]))
    assert not runner.message_hub


def test_another_task_steps_the_same_whatever_is_clipped(labeled):
    """A joint model whose detection loss grows a hundredfold."""
    torch.manual_seed(0)
    model = MODELS.build(Config.fromfile(labeled / 'joint.py').model)
    runner, hook = run(model, {'tasks.coco': 0.01})
    hook.before_train(runner)
    start = copy.deepcopy(model.state_dict())
    slopes = {
        name: torch.randn_like(p)
        for name, p in model.named_parameters()
        if p.requires_grad and name.startswith(('tasks.coco', 'tasks.ade'))
    }
    for scale in (1.0, 100.0):
        model.load_state_dict(start)
        loss = sum(
            (scale if 'coco' in name else 1.0) * (p * slopes[name]).sum()
            for name, p in model.named_parameters()
            if name in slopes
        )
        runner.optim_wrapper.update_params(loss)
        steps = {
            name: p.detach() - start[name]
            for name, p in model.named_parameters()
            if name in slopes
        }
        coco = [s.flatten() for n, s in steps.items() if 'tasks.coco' in n]
        assert torch.cat(coco).norm() == pytest.approx(0.01, rel=1e-2)
        for name, slope in slopes.items():
            if 'ade' in name:
                torch.testing.assert_close(
                    steps[name], -slope, rtol=1e-5, atol=1e-6
                )


@pytest.mark.parametrize(
    'name, reason', [('c', 'no module'), ('a', 'nothing in')]
)
def test_refuses_what_it_could_not_clip(name, reason):
    model = linear_pair()
    model['a'].requires_grad_(False)
    runner, hook = run(model, {name: 1.0})
    with pytest.raises(ValueError, match=reason):
        hook.before_train(runner)
