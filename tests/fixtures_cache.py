"""Runs of small teachers with and without a cache of their features."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from kpu_mm.datasets import MultiStreamLoader
from kpu_mm.registry import MODELS
from tests.runs import BASE, ROOT, write_images

LIVE = """
_base_ = {base!r}
source = dict(type='kpu_mm.FolderSource', root={images!r})
model = dict(
    student=dict(sentinel={sentinel!r}, inplanes=8,
                 norm_cfg=dict(_delete_=True, type='GN', num_groups=4)),
    teachers=dict(
        _delete_=True,
        clip=dict(type='kpu_mm.CLIPTeacher', model={clip!r}),
        gdino=dict(type='kpu_mm.UnpaddedTeacher', teacher=dict(
            type='kpu_mm.GroundingDINOTeacher', source={gdino!r}))),
    projector=dict(hidden=16),
)
train_dataloader = dict(
    _delete_=True,
    clip=dict(batch_size=4, num_workers=0, dataset=dict(
        type='kpu_mm.UnlabeledImages', sources=source, views=2,
        pipeline=[dict(type='kpu_mm.DecodeRandomResizedCrop', size=64),
                  dict(type='mmcv.RandomFlip', prob=0.5),
                  dict(type='kpu_mm.PackImage')])),
    gdino=dict(batch_size=3, num_workers=0, dataset=dict(
        type='kpu_mm.UnlabeledImages', sources=source, views=2,
        pipeline=[dict(type='kpu_mm.DecodeResize', shortest=96, longest=160),
                  dict(type='mmcv.RandomFlip', prob=0.5),
                  dict(type='kpu_mm.PackImage')])),
)
optim_wrapper = dict(type='OptimWrapper')
param_scheduler = dict(T_max=8)
train_cfg = dict(max_iters=8)
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(interval=4))
custom_hooks = [dict(type='kpu_mm.NonFiniteHook'),
                dict(type='kpu_mm.SkippedImagesHook', max_share=0.5)]
log_processor = dict(window_size=1)
"""
CACHED = """
_base_ = {base!r}
model = dict(teachers=dict(
    clip=dict(_delete_=True, type='kpu_mm.CachedTeacher', cache={clip!r},
              teacher={{{{_base_.model.teachers.clip}}}}),
    gdino=dict(_delete_=True, type='kpu_mm.CachedTeacher', cache={gdino!r},
               teacher={{{{_base_.model.teachers.gdino}}}}),
))
train_dataloader = dict(
    clip=dict(dataset=dict(features=dict(clip={clip!r}))),
    gdino=dict(dataset=dict(features=dict(gdino={gdino!r}))),
)
"""
TOOL = ROOT / 'tools' / 'dataset_tools' / 'cache_features.py'


@pytest.fixture(scope='session')
def live_config(tmp_path_factory, dinov2_dir, clip_dir, grounding_dino_dir):
    """A run that computes its teachers' features; one image is corrupt."""
    folder = tmp_path_factory.mktemp('live')
    write_images(folder / 'images')
    (folder / 'images' / '07.jpg').write_bytes(b'no image')
    path = folder / 'live.py'
    path.write_text(
        LIVE.format(
            base=str(BASE),
            images=str(folder / 'images'),
            sentinel=str(dinov2_dir),
            clip=f'local-dir:{clip_dir}',
            gdino=str(grounding_dino_dir),
        )
    )
    return path


@pytest.fixture(scope='session')
def run_cache_tool():
    """The tool, in this process: arguments -> exit code."""
    spec = importlib.util.spec_from_file_location('cache_features', TOOL)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)

    def run(*arguments):
        before = sys.argv
        sys.argv = [TOOL.name, *map(str, arguments), '--workers', '0']
        try:
            return tool.main()
        except SystemExit as error:
            return error.code
        finally:
            sys.argv = before

    return run


@pytest.fixture(scope='session')
def feature_caches(tmp_path_factory, live_config, run_cache_tool):
    """Folder of the caches of both teachers, with several chunks a view."""
    folder = tmp_path_factory.mktemp('caches')
    assert run_cache_tool(live_config, folder, '--chunk-mb', '0.1') == 0
    return folder


@pytest.fixture
def caches_copy(feature_caches, tmp_path):
    return Path(shutil.copytree(feature_caches, tmp_path / 'caches'))


@pytest.fixture(scope='session')
def cached_config(live_config, feature_caches):
    """The same run with the caches."""
    return write_cached(live_config, feature_caches, live_config.parent)


def write_cached(base: Path, caches: Path, folder: Path) -> Path:
    path = folder / f'cached_{caches.name}.py'
    text = CACHED.format(
        base=str(base), clip=str(caches / 'clip'), gdino=str(caches / 'gdino')
    )
    path.write_text(text)
    return path


def loss_rows(path: Path, iterations: int = 8, seed: int = 3, change=None):
    """Losses of the first iterations of an untrained student."""
    cfg = Config.fromfile(path)
    if change is not None:
        change(cfg)
    torch.manual_seed(0)
    model = MODELS.build(cfg.model).eval()
    for p in model.parameters():
        if p.requires_grad:  # gamma 0 would hide the injectors
            p.data += 0.02 * torch.randn_like(p)
    loader = MultiStreamLoader(cfg.train_dataloader, seed=seed)
    fit_on = {name: stream_of(loader, name) for name in loader.loaders}
    model.fit_normalizers(fit_on, 12)
    rows = []
    for batch, _ in zip(loader, range(iterations), strict=False):
        data = model.data_preprocessor(batch, False)
        with torch.no_grad():
            losses = model(data['streams'])
        rows.append({key: float(value) for key, value in losses.items()})
    loader.close()
    return rows


def stream_of(loader: MultiStreamLoader, name: str):
    for batch in loader:
        yield batch['streams'][name]
