"""Training steps of a distiller with each of the balancers."""

import copy
from types import SimpleNamespace

import pytest
import torch
from mmengine.optim import OptimWrapper

from kpu_mm.engine.distill_hooks import SecondLossHook
from kpu_mm.engine.optimizers import AutocastOptimWrapper, TrainableConstructor
from kpu_mm.models import KPUDistiller

ALL = ('AdaLoss', 'FAMO', 'TeacherDrop', 'Uncertainty')


def build(cfg, balancer, **kwargs):
    torch.manual_seed(0)
    cfg['student'].update(drop_path_rate=0.3, norm_cfg=dict(type='BN'), num_interactions=1)
    balancer = dict(type=f'kpu_mm.{balancer}Balancer')
    return KPUDistiller(**cfg, balancer=balancer, **kwargs).train()


def batches(count, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def images(*shape):
        return torch.randint(256, shape, generator=generator).byte()

    for _ in range(count):
        yield dict(
            streams=dict(
                dino=dict(images=images(3, 3, 56, 56)), gdino=dict(images=images(2, 3, 64, 64))
            )
        )


def wrap(model, wrapper=OptimWrapper, lr=1e-2, **kwargs):
    params = [p for p in model.parameters() if p.requires_grad]
    return wrapper(optimizer=torch.optim.AdamW(params, lr=lr), **kwargs)


def train_step(model, data, optim):
    """A step as the runner makes it."""
    logs = model.train_step(data, optim)
    runner = SimpleNamespace(model=model, optim_wrapper=optim)
    SecondLossHook().after_train_iter(runner, 0)
    return logs


@pytest.mark.parametrize('balancer', ALL)
@pytest.mark.parametrize('wrapper', [OptimWrapper, AutocastOptimWrapper])
def test_steps_log_finite_weights(cfg, balancer, wrapper):
    model = build(cfg, balancer)
    optim = wrap(model, wrapper)
    logs = [train_step(model, data, optim) for data in batches(3)]
    for row in logs:
        assert all(torch.isfinite(torch.tensor(list(row.values()))))
        weights = row['weight/dino'], row['weight/gdino']
        if balancer == 'Uncertainty':
            assert min(weights) > 0
        else:
            assert sum(weights) == pytest.approx(1)


def test_famo_compares_the_same_images_and_random_numbers(cfg):
    model = build(cfg, 'FAMO')
    optim = wrap(model, lr=0.0)
    for data in batches(2):
        train_step(model, data, optim)
    # a step that changes nothing, with BatchNorm and drop path at work
    assert model.balancer.steps == 2
    assert torch.equal(model.balancer.logits, torch.zeros(2))


def test_famo_learns_from_the_losses_after_the_step(cfg):
    model = build(cfg, 'FAMO')
    (data,) = batches(1)
    taught = []
    for name, teacher in model.teachers.items():
        teacher.register_forward_hook(lambda *_, n=name: taught.append(n))
    state = torch.get_rng_state()
    before = train_step(model, data, wrap(model, lr=1e-2))
    assert taught == ['dino', 'gdino']  # once, their features are kept
    tracked = next(b for n, b in model.named_buffers() if 'num_batches_tracked' in n)
    assert tracked == 2  # one for each stream
    torch.set_rng_state(state)
    with torch.no_grad():
        after = model(**data)
    terms = ('s2t', 't2s', 'rec')

    def log_loss(losses, name):
        return torch.tensor(sum(float(losses[f'{term}/{name}']) for term in terms)).log()

    falls = torch.stack([log_loss(before, n) - log_loss(after, n) for n in ('dino', 'gdino')])
    assert (falls[0] - falls[1]).abs() > 1e-3
    # z = (1/2, 1/2): the gradient is a quarter of the falls' difference
    torch.testing.assert_close(
        model.balancer.moment[0], 0.1 * (falls[0] - falls[1]) / 4, rtol=1e-3, atol=1e-6
    )


def test_famo_waits_for_accumulated_gradients(cfg):
    model = build(cfg, 'FAMO')
    optim = wrap(model, accumulative_counts=2)
    steps = []
    for data in batches(4):
        train_step(model, data, optim)
        steps.append(int(model.balancer.steps))
    assert steps == [0, 1, 1, 2]


def test_the_hook_leaves_other_models_alone():
    runner = SimpleNamespace(model=torch.nn.Linear(1, 1), optim_wrapper=None)
    SecondLossHook().after_train_iter(runner, 0)


def test_famo_refuses_to_train_without_its_hook(cfg):
    model = build(cfg, 'FAMO')
    (data,) = batches(1)
    model(**data)['loss'].backward()
    with pytest.raises(RuntimeError, match=r'after each step.*SecondLossHook'):
        model(**data)


def test_famo_state_is_in_the_checkpoint(cfg):
    model, other = build(cfg, 'FAMO'), build(cfg, 'FAMO')
    optim = wrap(model)
    for data in batches(2):
        train_step(model, data, optim)
    other.load_state_dict(model.state_dict())
    again = wrap(other)
    again.load_state_dict(copy.deepcopy(optim.state_dict()))
    for data in batches(2, seed=1):
        torch.manual_seed(5)
        first = train_step(model, data, optim)
        torch.manual_seed(5)
        assert train_step(other, data, again) == first
    assert torch.equal(model.balancer.logits, other.balancer.logits)
    assert model.balancer.logits.abs().min() > 0


def test_evaluation_changes_no_balancer(cfg):
    for balancer in ALL:
        model = build(cfg, balancer).eval()
        before = [v.clone() for v in model.balancer.state_dict().values()]
        with torch.no_grad():
            model(**next(batches(1)))
        after = model.balancer.state_dict().values()
        assert all(map(torch.equal, before, after))


def test_uncertainty_is_trained_without_weight_decay(cfg):
    model = build(cfg, 'Uncertainty')
    for paramwise in (None, dict(norm_decay_mult=0.0)):
        optim = TrainableConstructor(
            dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-2, weight_decay=0.05)),
            paramwise,
        )(model)
        decays = {
            p: group['weight_decay']
            for group in optim.optimizer.param_groups
            for p in group['params']
        }
        assert decays[model.balancer.log_variances] == 0
        assert decays[model.links['dino'].s2t.maps[0][0].weight] > 0
    for data in batches(2):
        train_step(model, data, optim)
    assert model.balancer.log_variances.abs().min() > 0
    assert 'balancer.log_variances' in model.state_dict()


def test_uncertainty_takes_streams_one_by_one(cfg):
    results = []
    cfg['student'].update(drop_path_rate=0.0)
    for backward in ('joint', 'per_stream'):
        model = build(cfg, 'Uncertainty', backward=backward)
        torch.manual_seed(0)
        optim = wrap(model)
        logs = [train_step(model, data, optim) for data in batches(2)]
        results.append([row['loss'] for row in logs])
    assert results[0] == pytest.approx(results[1], rel=1e-4)


@pytest.mark.parametrize('balancer', ['AdaLoss', 'FAMO', 'TeacherDrop'])
def test_streams_that_are_weighed_against_each_other(cfg, balancer):
    with pytest.raises(ValueError, match=f"{balancer}.*set backward='joint'"):
        build(cfg, balancer, backward='per_stream')


def test_uncertainty_of_a_teacher_of_several_streams(cfg):
    with pytest.raises(ValueError, match=r"Uncertainty.*set backward='joint'"):
        build(cfg, 'Uncertainty', backward='per_stream', streams=dict(dino=['dino', 'gdino']))


def test_teacher_drop_knows_who_shares_a_stream(cfg):
    assert not build(cfg, 'TeacherDrop').balancer.per_image
    shared = dict(dino='all', gdino='all')
    model = build(cfg, 'TeacherDrop', streams=shared)
    assert model.balancer.per_image
    model.balancer.drop_prob = 1.0  # each image keeps the teacher that is worse for it
    given = []
    model.balancer.register_forward_pre_hook(lambda _, args: given.append(args[0]))
    images = next(batches(1))['streams']['dino']
    row = model.train_step(dict(streams=dict(all=images)), wrap(model))
    (losses,) = given
    worse = (losses['dino'] > losses['gdino']).float().mean().item()
    assert row['weight/dino'] == pytest.approx(worse)
    assert row['weight/gdino'] == pytest.approx(1 - worse)
