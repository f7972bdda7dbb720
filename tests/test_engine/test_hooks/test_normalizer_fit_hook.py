import random
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.optim import OptimWrapper

from kpu_mm.datasets import MultiStreamLoader
from kpu_mm.engine import AutocastOptimWrapper, NormalizerFitHook
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
        train_loop=SimpleNamespace(
            dataloader=MultiStreamLoader(cfg.train_dataloader)
        ),
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
        runner.optim_wrapper = AutocastOptimWrapper(
            optimizer=runner.optim_wrapper.optimizer
        )
    NormalizerFitHook(num_images=8).before_train(runner)
    model, loader = runner.model, runner.train_loop.dataloader
    assert all(link.normalizer.fitted for link in model.links.values())
    found = first_images(loader)
    # eight images are two batches of four
    with runner.optim_wrapper.optim_context(model):
        teacher, link = model.teachers['dino'], model.links['dino']
        maps = [
            link.targets(teacher.encode(step['dino'])).maps[0]
            for step in found
        ]
    variances = torch.cat(maps).var((0, 2, 3), correction=0)
    torch.testing.assert_close(
        variances, torch.ones_like(variances), rtol=1e-4, atol=0
    )


def test_training_does_not_notice(runner):
    loader = runner.train_loop.dataloader
    before = first_images(loader)
    states = (
        torch.get_rng_state(),
        np.random.get_state()[1],
        random.getstate(),
    )
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
