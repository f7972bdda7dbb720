"""Every config builds and takes a step, with small models in its places."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from kpu_mm.datasets import MultiStreamLoader
from kpu_mm.models import KPUDistiller
from kpu_mm.registry import MODELS
from tests.runs import write_images

CONFIGS = Path(__file__).parents[1] / 'configs'
DISTILL = sorted((CONFIGS / 'distill').glob('*.py'))


@pytest.fixture
def shrink(dinov2_dir, clip_dir, grounding_dino_dir, tmp_path):
    write_images(tmp_path / 'images', 4)

    def apply(cfg):
        cfg.model.student.sentinel = str(dinov2_dir)
        cfg.model.student.inplanes = 8
        clip = cfg.model.teachers.clip
        clip.pop('pretrained', None)
        clip.model = f'local-dir:{clip_dir}'
        cfg.model.teachers.grounding_dino.source = str(grounding_dino_dir)
        for stream in cfg.train_dataloader.values():
            assert stream.batch_size > 0
            stream.update(batch_size=2, num_workers=0)
            stream.dataset.sources = dict(
                type='kpu_mm.FolderSource', root=str(tmp_path / 'images')
            )
            stream.dataset.weights = None
            decode = stream.dataset.pipeline[0]
            if 'shortest' in decode:
                decode.update(shortest=64, longest=96)
        return cfg

    return apply


@pytest.mark.parametrize('path', DISTILL, ids=lambda p: p.stem)
def test_distill_config(path, shrink):
    cfg = shrink(Config.fromfile(path))
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    assert isinstance(model, KPUDistiller)
    loader = MultiStreamLoader(cfg.train_dataloader)
    model.fit_normalizers(loader.loaders, 4)
    streams = next(iter(loader))
    losses = model.train()(**streams)
    losses['loss'].backward()
    assert torch.isfinite(losses['loss'])
    assert set(model.teachers) == set(cfg.train_dataloader)


def test_the_papers_numbers():
    cfg = Config.fromfile(CONFIGS / 'distill' / 'kpu_vitb.py')
    assert cfg.train_dataloader.clip.batch_size == 32
    assert cfg.train_dataloader.grounding_dino.batch_size == 4
    optimizer = cfg.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.lr) == ('AdamW', 2e-4)
    assert optimizer.weight_decay == 0.05
    assert cfg.train_cfg.max_iters == cfg.param_scheduler.T_max == 40_000
