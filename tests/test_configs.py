"""Every config builds and takes a step, with small models in its places."""

import math

import pytest
import torch
from mmengine.config import Config

from kpu_mm.datasets import MultiStreamLoader
from kpu_mm.models import KPUDistiller
from kpu_mm.models.normalizers import fit_normalizers
from kpu_mm.registry import MODELS
from tests.recipes import CONFIGS, RECIPES, SMALL_MODELS, shrink
from tests.runs import write_images


@pytest.fixture
def models(request):
    return {name: request.getfixturevalue(f'{name}_dir') for name in SMALL_MODELS}


@pytest.mark.parametrize('path', RECIPES, ids=lambda p: p.stem)
def test_distill_config(path, models, tmp_path):
    write_images(tmp_path / 'images', 4)
    cfg = Config.fromfile(path)
    for stream in cfg.train_dataloader.values():
        assert stream.batch_size > 0
    cfg = shrink(cfg, models, tmp_path)
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    assert isinstance(model, KPUDistiller)
    loader = MultiStreamLoader(cfg.train_dataloader)
    fit_normalizers(model, loader.loaders, num_images=8)
    losses = model.train()(**next(iter(loader)))
    losses['loss'].backward()
    assert torch.isfinite(losses['loss'])
    assert set(model.streams.of_stream) == set(cfg.train_dataloader)


def test_the_papers_numbers():
    cfg = Config.fromfile(CONFIGS / 'kpu_vitb.py')
    assert cfg.train_dataloader.clip.batch_size == 32
    assert cfg.train_dataloader.grounding_dino.batch_size == 4
    optimizer = cfg.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.lr) == ('AdamW', 2e-4)
    assert optimizer.weight_decay == 0.05
    assert cfg.train_cfg.max_iters == cfg.param_scheduler.T_max == 40_000


def difference(name, variables=()):
    """What a config changes in the paper's run, its own variables apart."""
    kpu, other = (Config.fromfile(CONFIGS / f'{stem}.py').to_dict() for stem in ('kpu_vitb', name))
    for part in ('model', 'train_dataloader', 'default_hooks'):
        both = kpu.pop(part), other.pop(part)
        for key in set(both[0]) | set(both[1]):
            if both[0].get(key) != both[1].get(key):
                yield key, both[1].get(key)
    assert kpu == {key: value for key, value in other.items() if key not in variables}


@pytest.mark.parametrize(
    ('name', 'terms'), [('base-b_vitb', dict(s2t=1.0)), ('base-c_vitb', dict(s2t=1.0, t2s=1.0))]
)
def test_ablations_of_terms(name, terms):
    assert dict(difference(name)) == dict(terms=terms)


@pytest.mark.parametrize(
    ('name', 'other'), [('clip-only_vitb', 'grounding_dino'), ('grounding-dino-only_vitb', 'clip')]
)
def test_ablations_of_teachers(name, other):
    changed = dict(difference(name))
    assert set(changed) == {'teachers', other}
    assert other not in changed['teachers']
    assert changed[other] is None  # its stream


def test_the_ablation_without_adapter():
    changed = dict(difference('base-a_vitb'))
    assert set(changed) == {'student', 'teachers', 'terms', 'streams', 'norm_eval'}
    assert changed['norm_eval'] is None
    assert set(changed['teachers']) == {'clip', 'grounding_dino', 'dinov2'}
    assert changed['terms'] == dict(s2t=1.0)
    source = changed['teachers']['dinov2']['source']
    assert changed['student']['sentinel'] == source


def test_modern_models():
    changed = dict(difference('kpu_vitb_modern', variables=('clip', 'whole', 'crop')))
    assert set(changed) == {'student', 'teachers', 'streams', 'clip', 'siglip'}
    assert changed['clip'] is None  # its stream
    assert changed['siglip']['dataset']['pipeline'][0]['size'] == 256
    assert changed['streams'] == dict(sam='grounding_dino')


def test_numbers_of_dune():
    """Those of its code: epochs of ImageNet-1K's size, a fifth of them warm-up."""
    cfg = Config.fromfile(CONFIGS / 'dune_vitb.py')
    warmup, rest = cfg.param_scheduler
    assert cfg.train_cfg.max_iters == math.ceil(100 * 1281167 / (4 * 128))
    assert warmup.end == rest.begin == int(0.2 * cfg.train_cfg.max_iters)
    assert rest.begin + rest.T_max == cfg.model.normalizer.updates == cfg.train_cfg.max_iters
    assert cfg.optim_wrapper.optimizer.lr == 3e-4 * 4 * 128 / 256
    model = cfg.model
    assert set(model.student) == {'type', 'sentinel', 'frozen'}
    assert set(model.teachers) == set(model.streams) == {'dinov2', 'depth', 'multi_hmr'}
    assert model.normalizer.type == 'kpu_mm.MovingNormalizer'
    assert 'by' not in model.normalizer  # the batch, not UNIC's averages


def test_numbers_of_siglino():
    """50,000 and 90,000 steps on 4 x 8 GPUs, the first once over 200 M images."""
    first, second = (
        Config.fromfile(CONFIGS / f'{n}.py') for n in ('siglino-256_vitb', 'siglino_vitb')
    )
    assert (first.train_cfg.max_iters, second.train_cfg.max_iters) == (50_000, 90_000)
    packs = first.train_dataloader.packs.dataset
    images = packs.tokens // (256 // 16) ** 2
    assert images == packs.max_images
    assert 32 * images * first.train_cfg.max_iters == pytest.approx(200e6, rel=0.03)
    assert max(second.train_dataloader.packs.dataset.sizes) == 768
    assert second.model == first.model
    assert str(first.train_cfg.max_iters) in second.load_from
