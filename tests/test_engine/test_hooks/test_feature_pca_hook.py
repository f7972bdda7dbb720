from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config

from kpu_mm.datasets import MultiStreamLoader
from kpu_mm.engine.hooks import FeaturePCAHook
from kpu_mm.registry import MODELS


class Panels(dict):
    def add_image(self, name, image, step):
        self[name, step] = image


@pytest.fixture(params=['live_config', 'cached_config'])
def run(request):
    """A distiller whose teachers are there, or only their features."""
    cfg = Config.fromfile(request.getfixturevalue(request.param))
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
        height, width = batch['streams'][name]['images'].shape[-2:]
        panel = runner.visualizer[f'pca_{name}', 4]
        # image, teacher and student, two images high
        assert panel.shape == (2 * height, 3 * width, 3)
    assert model.training
