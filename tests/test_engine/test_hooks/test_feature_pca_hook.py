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
