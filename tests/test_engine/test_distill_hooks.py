import random
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.optim import OptimWrapper

from kpu_mm.datasets import MultiStreamLoader
from kpu_mm.engine.distill_hooks import FeaturePCAHook, NormalizerFitHook, NormEvalHook
from kpu_mm.engine.optimizers import AutocastOptimWrapper
from kpu_mm.registry import MODELS


@pytest.fixture
def runner(run_config):
    cfg = Config.fromfile(run_config)
    cfg.train_dataloader.dino.num_workers = 0
    model = dict(cfg.model, normalizer=dict(type='kpu_mm.PHISNormalizer'))
    model = MODELS.build(model)
    optimizer = torch.optim.SGD(model.links.parameters(), lr=0.1)
    return SimpleNamespace(
        model=model,
        train_loop=SimpleNamespace(dataloader=MultiStreamLoader(cfg.train_dataloader)),
        optim_wrapper=OptimWrapper(optimizer),
        seed=7,
        iter=0,
        logger=Mock(),
    )


def first_images(loader, seed=7):
    loader.set_seed(seed)
    iterator = iter(loader)
    found = [next(iterator)['streams'] for _ in range(2)]
    loader.close()
    return [{k: b['images'] for k, b in streams.items()} for streams in found]


@pytest.mark.parametrize('precision', ['float32', 'bfloat16'])
def test_fits_to_the_images_training_begins_with(runner, precision):
    if precision == 'bfloat16':
        runner.optim_wrapper = AutocastOptimWrapper(optimizer=runner.optim_wrapper.optimizer)
    NormalizerFitHook(num_images=8).before_train(runner)
    model, loader = runner.model, runner.train_loop.dataloader
    assert all(link.normalizer.fitted for link in model.links.values())
    found = first_images(loader)
    # eight images are two batches of four
    with runner.optim_wrapper.optim_context(model):
        teacher, link = model.teachers['dino'], model.links['dino']
        maps = [link.targets(teacher.encode(step['dino'])).maps[0] for step in found]
    variances = torch.cat(maps).var((0, 2, 3), correction=0)
    torch.testing.assert_close(variances, torch.ones_like(variances), rtol=1e-4, atol=0)


def test_training_does_not_notice(runner):
    loader = runner.train_loop.dataloader
    before = first_images(loader)
    states = (torch.get_rng_state(), np.random.get_state()[1], random.getstate())
    NormalizerFitHook(num_images=6).before_train(runner)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.array_equal(np.random.get_state()[1], states[1])
    assert random.getstate() == states[2]
    for expected, got in zip(before, first_images(loader), strict=True):
        for name, images in expected.items():
            assert torch.equal(images, got[name])


def test_statistics_of_a_checkpoint_stay(runner):
    NormalizerFitHook(num_images=4).before_train(runner)
    mean = runner.model.links['dino'].normalizer.maps[0].mean
    before = mean.clone()
    runner.seed, runner.iter = 8, 3
    NormalizerFitHook(num_images=8).before_train(runner)
    assert torch.equal(mean, before)


def test_resumed_from_a_run_without_normalizer(runner):
    runner.iter = 3
    with pytest.raises(RuntimeError, match=r'iteration 3 .* without the norm'):
        NormalizerFitHook().before_train(runner)


def test_other_models_are_left_alone():
    NormalizerFitHook().before_train(SimpleNamespace(model=torch.nn.ReLU()))
    with pytest.raises(ValueError, match='num_images=0'):
        NormalizerFitHook(num_images=0)


class Panels(dict):
    def add_image(self, name, image, step):
        self[name, step] = image


@pytest.fixture
def run(live_config):
    cfg = Config.fromfile(live_config)
    torch.manual_seed(0)
    loader = MultiStreamLoader(cfg.train_dataloader, seed=1)
    return MODELS.build(cfg.model).train(), next(iter(loader))


def test_draws_each_teacher(run):
    model, batch = run
    runner = SimpleNamespace(model=model, max_iters=8, visualizer=Panels())
    hook = FeaturePCAHook(interval=4, num_images=2)
    for i in (0, 1, 2, 3):
        hook.after_train_iter(runner, i, batch)
    assert set(runner.visualizer) == {('pca_clip', 4), ('pca_gdino', 4)}
    for name in ('clip', 'gdino'):
        panel = runner.visualizer[f'pca_{name}', 4]
        assert panel.dtype == 'uint8'
        # image, teacher and student side by side, the second image below
        assert panel.shape[0] % 2 == panel.shape[1] % 3 == 0
        parts = panel.reshape(2, panel.shape[0] // 2, 3, -1, 3)
        assert parts[:, :, :2].std(axis=(1, 3)).min() > 5
    assert model.training


TINY = dict(
    model_type='dinov2',
    hidden_size=32,
    num_hidden_layers=4,
    num_attention_heads=2,
    image_size=28,
    patch_size=14,
)


def student_of_two_streams(student, hook, start=0, iterations=6):
    """Train on batches of two sizes; inputs of the first norm layer."""
    runner = SimpleNamespace(model=SimpleNamespace(student=student), max_iters=iterations)
    optimizer = torch.optim.SGD(student.parameters(), lr=0.01)
    first, inputs = student.prior.stem[1], []
    handle = first.register_forward_pre_hook(lambda _, args: inputs.append(args[0].detach()))
    student.train()
    for i in range(start, iterations):
        hook.before_train_iter(runner, i)
        torch.manual_seed(i)
        loss = sum(
            m.square().mean()
            for size, scale in ((32, 1.0), (48, 3.0))
            for m in student(scale * torch.randn(2, 3, size, size))
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    handle.remove()
    return inputs


def build_student():
    torch.manual_seed(0)
    return MODELS.build(dict(type='kpu_mm.KPUBackbone', sentinel=dict(TINY), inplanes=8))


def test_norm_statistics_stay():
    # iterations 0 to 5: 1 and 2 are averaged, those from 3 on are as in inference
    student = build_student()
    inputs = student_of_two_streams(student, NormEvalHook(begin=0.5, window=2))
    seen = torch.stack([x.mean((0, 2, 3)) for x in inputs[2:6]])
    first = student.prior.stem[1]
    assert not first.training and student.training
    torch.testing.assert_close(first.running_mean, seen.mean(0))
    images = torch.randn(2, 3, 32, 32)
    for a, b in zip(student.train()(images), student.eval()(images), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize('stop', [2, 4])
def test_norm_statistics_of_a_resumed_run(stop):
    whole, before, after = build_student(), build_student(), build_student()
    hook = NormEvalHook(begin=0.5, window=2)
    student_of_two_streams(whole, hook)
    # as a killed run
    with pytest.raises(StopIteration):
        student_of_two_streams(before, _StopAt(hook, stop))
    after.load_state_dict(before.state_dict())
    student_of_two_streams(after, hook, start=stop)
    expected = whole.state_dict()
    for key, value in after.state_dict().items():
        assert torch.equal(value, expected[key]), key


class _StopAt:
    def __init__(self, hook, stop):
        self.hook, self.stop = hook, stop

    def before_train_iter(self, runner, batch_idx):
        if batch_idx == self.stop:
            raise StopIteration
        self.hook.before_train_iter(runner, batch_idx)


def test_norm_statistics_refusals():
    with pytest.raises(ValueError, match='begin=1, window=200: give a share'):
        NormEvalHook(begin=1)
    runner = SimpleNamespace(model=SimpleNamespace(student=torch.nn.Linear(1, 1)), max_iters=2)
    with pytest.raises(
        ValueError, match='no batch norms whose statistics could stay; leave kpu_mm'
    ):
        NormEvalHook().before_train(runner)
