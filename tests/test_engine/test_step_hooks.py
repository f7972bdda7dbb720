import copy
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
import torch
from mmengine.config import Config
from mmengine.logging import MessageHub
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from torch import nn

from kpu_mm.engine.step_hooks import ModuleClipHook, NonFiniteHook, SkippedImagesHook
from kpu_mm.registry import MODELS


def test_names_what_is_not_finite():
    hook = NonFiniteHook()
    runner = SimpleNamespace(work_dir='work_dirs/x')
    hook.after_train_iter(runner, 3, outputs={'loss': 1.0, 's2t/a': 2.0})
    advice = r'--cfg-options runner_type=kpu_mm.KPURunner resume_schedule=config optim_wrapper\.'
    with pytest.raises(FloatingPointError, match=f'iteration 5: s2t/a = nan.*--resume {advice}'):
        hook.after_train_iter(runner, 4, outputs={'loss': 1.0, 's2t/a': float('nan')})


def test_broken_weights_are_not_saved():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2).requires_grad_(False))
    runner = SimpleNamespace(work_dir='work_dirs/x', model=model, iter=8)
    nn.init.constant_(model[1].weight, float('nan'))  # is not trained, and not saved
    NonFiniteHook().before_save_checkpoint(runner, {})
    model[0].bias.data[1] = float('inf')
    with pytest.raises(FloatingPointError, match=r'iteration 8: 0\.bias is not finite.*--resume'):
        NonFiniteHook().before_save_checkpoint(runner, {})


@pytest.mark.parametrize('value', [float('nan'), float('inf')])
def test_losses_that_are_still_tensors(value):
    hook = NonFiniteHook()
    runner = SimpleNamespace(work_dir='work_dirs/x')
    loss = torch.ones((), requires_grad=True)
    hook.after_train_iter(runner, 3, outputs={'loss': loss, 'acc': 1.0})
    bad = {'loss': loss, 'loss_cls': loss * value}
    with pytest.raises(FloatingPointError, match=f'loss_cls = {value}'):
        hook.after_train_iter(runner, 4, outputs=bad)


class Hub(dict):
    def update_scalar(self, name, value):
        self.setdefault(name, []).append(float(value))


def run(model, max_norm, wrapper=OptimWrapper, **options):
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    return SimpleNamespace(
        model=model, optim_wrapper=wrapper(optimizer=optimizer, **options), message_hub=Hub()
    ), ModuleClipHook(max_norm)


def linear_pair():
    """Two parts with gradients of norm 5 and 10 for the loss of `step`."""
    model = nn.ModuleDict(dict(a=nn.Linear(2, 1, bias=False), b=nn.Linear(2, 1, bias=False)))
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
    torch.testing.assert_close(model['a'].weight, torch.tensor([[-0.3, -0.4]]), rtol=1e-5, atol=0)
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
    torch.testing.assert_close(model['b'].weight, torch.tensor([[-12.0, 16.0]]), rtol=1e-5, atol=0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason='scales on CUDA')
def test_sees_unscaled_gradients_in_float16():
    model = linear_pair().cuda()
    runner, hook = run(model, {'a': 0.5}, AmpOptimWrapper)
    hook.before_train(runner)
    with runner.optim_wrapper.optim_context(model):
        loss = loss_of(model)
    runner.optim_wrapper.update_params(loss)
    assert runner.message_hub['train/grad_norm/a'] == pytest.approx([5.0])


@pytest.mark.parametrize('overflow', [False, True])
def test_sees_unscaled_gradients_of_a_fused_optimiser(overflow):
    model = linear_pair()
    runner, hook = run(model, {'a': 0.5})
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0, fused=True)
    runner.optim_wrapper = OptimWrapper(optimizer)
    hook.before_train(runner)
    scaler = torch.amp.GradScaler('cpu', init_scale=1024.0)
    scaler.scale(loss_of(model) * (float('inf') if overflow else 1.0)).backward()
    scaler.step(optimizer)
    scaler.update()
    # the same step as without a scale; none after an overflow
    a, b = ([0.0, 0.0],) * 2 if overflow else ([-0.3, -0.4], [-6.0, 8.0])
    torch.testing.assert_close(model['a'].weight, torch.tensor([a]), rtol=1e-5, atol=0)
    torch.testing.assert_close(model['b'].weight, torch.tensor([b]))
    if not overflow:
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
            name: p.detach() - start[name] for name, p in model.named_parameters() if name in slopes
        }
        coco = [s.flatten() for n, s in steps.items() if 'tasks.coco' in n]
        assert torch.cat(coco).norm() == pytest.approx(0.01, rel=1e-2)
        for name, slope in slopes.items():
            if 'ade' in name:
                torch.testing.assert_close(steps[name], -slope, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('name, reason', [('c', 'no module'), ('a', 'nothing in')])
def test_refuses_what_it_could_not_clip(name, reason):
    model = linear_pair()
    model['a'].requires_grad_(False)
    runner, hook = run(model, {name: 1.0})
    with pytest.raises(ValueError, match=reason):
        hook.before_train(runner)


def make_runner(name):
    runner = Mock()
    runner.message_hub = MessageHub.get_instance(name)
    return runner


def batch(skipped):
    images = torch.zeros(4, 3, 8, 8)
    return dict(streams=dict(a=dict(images=images, skipped=skipped)))


def warnings(runner):
    return [c.args[0] for c in runner.logger.warning.call_args_list]


def test_named_counted_and_kept_in_the_message_hub():
    runner = make_runner('skip_count')
    hook = SkippedImagesHook(interval=2)
    hook.before_train_iter(runner, 0, batch([('x.jpg', 'truncated')]))
    assert not warnings(runner)
    hook.before_train_iter(runner, 1, batch([('y.jpg', 'empty')]))
    assert warnings(runner) == [
        'skipped x.jpg: truncated',
        'skipped y.jpg: empty',
        '2 of 10 images skipped so far.',
    ]
    # a resumed run has a new hook and the old message hub
    hook = SkippedImagesHook(interval=1)
    hook.before_train_iter(runner, 2, batch([('z.jpg', 'empty')]))
    assert warnings(runner)[-1] == '3 of 15 images skipped so far.'


def test_limit():
    runner = make_runner('skip_limit')
    hook = SkippedImagesHook(max_share=0.19, min_images=8, interval=1)
    hook.before_train_iter(runner, 0, batch([('a', ''), ('b', '')]))
    with pytest.raises(RuntimeError, match='2 of 10 images could not be read'):
        hook.before_train_iter(runner, 1, batch([]))


def test_a_finished_run_that_is_resumed_reads_no_images():
    runner = make_runner('skip_finished')
    runner.iter = 1000
    runner.message_hub.update_info('skipped_images', 1000)
    SkippedImagesHook().after_train(runner)
    assert not warnings(runner)
