"""A whole step without its GPU."""

import json
import runpy
import shutil
import sys
from types import SimpleNamespace

import pytest
import rehearse
import torch
from huggingface_hub import constants
from mmengine.config import Config
from mmengine.registry import DefaultScope
from rehearsal import report
from rehearsal.fake_gpu import Kernel
from rehearsal.report import GPU, Report
from rehearsal.untrained import ARCHITECTURES, untrained

from kpu_mm.models.kpu_distiller import KPUDistiller
from kpu_mm.models.level_map import map_levels
from kpu_mm.models.teacher_link import build_link
from kpu_mm.models.vits import TransformersViT
from kpu_mm.registry import MODELS
from tests.runs import ROOT, refusal_of

TOOL = 'analysis_tools/rehearse.py'
CONFIGS = ROOT / 'configs'


def count(path):
    cfg = Config.fromfile(path)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        return rehearse.rehearse(cfg)


@pytest.fixture(scope='module')
def counted(run_config):
    return count(run_config)


def test_a_run(run_config, monkeypatch, capsys, tmp_path):
    written = tmp_path / 'memory.json'
    line = [TOOL, str(run_config), '--gpus', '2', '--json', str(written)]
    monkeypatch.setattr(sys, 'argv', line)
    runpy.run_path(str(ROOT / 'tools' / TOOL), run_name='__main__')
    out = capsys.readouterr().out
    assert 'One step of each GPU: 4 dino, 2 coarse.' in out
    assert 'Operations on tensors of two devices: none' in out
    assert 'hours of 12 steps' in out and 'hours of 2 GPUs' in out
    assert 'teachers.coarse' in out and 'buckets of DDP' in out
    assert 'On one H100 the batch fits' in out
    # the table has GiB with two digits
    (total,) = (line for line in out.splitlines() if line.split()[1:2] == ['all'])
    found = json.loads(written.read_text())
    peak = found['peak']
    assert f'{found["trained"]["student"] / 1e6:.1f} M of the student' in out
    assert found['trained']['rest'] > 0 and found['seconds']['h100'] > 0
    assert peak / 2**30 == pytest.approx(float(total.split()[-2]), abs=0.006)


def test_models_in_the_cache_of_the_hub_are_known(dinov2_dir, tmp_path, monkeypatch):
    model = tmp_path / 'models--no--such-model'
    shutil.copytree(dinov2_dir, model / 'snapshots' / 'abc')
    (model / 'refs').mkdir()
    (model / 'refs' / 'main').write_text('abc')
    monkeypatch.setattr(constants, 'HF_HUB_CACHE', str(tmp_path))
    with untrained():
        found = TransformersViT('no/such-model')
    assert found.embed_dims == TransformersViT(str(dinov2_dir)).embed_dims


@pytest.mark.parametrize(
    ('name', 'channels'),
    [
        ('kpu_vitb', (256, 512, 1024)),
        ('kpu_vitb_modern', (256, 512, 1024)),
        ('kpu_vitb_grounding-dino-tiny', (192, 384, 768)),
    ],
)
def test_projectors_have_the_widths_of_released_teachers(name, channels):
    cfg = Config.fromfile(CONFIGS / 'distill' / f'{name}.py').model
    with untrained():
        teacher = MODELS.build(cfg.teachers.grounding_dino)
    assert teacher.channels == channels
    student = SimpleNamespace(strides=(4, 8, 16, 32), embed_dims=768)
    levels = map_levels(dict(gdino=teacher.strides), student.strides)['gdino']
    link = build_link(levels, student, teacher, dict(s2t=1.0, t2s=1.0), cfg.projector, None, 1.0)
    assert link.channels == channels
    assert [mlp[0].in_features for mlp in link.t2s.maps] == [*channels]


@pytest.mark.parametrize('path', sorted((CONFIGS / 'distill').glob('*.py')), ids=lambda p: p.stem)
def test_knows_the_models_of_all_recipes(path):
    model = Config.fromfile(path).model
    named = [model.student.sentinel, *(t.get('source') for t in model.teachers.values())]
    assert {name for name in named if isinstance(name, str)} <= set(ARCHITECTURES)


def test_the_sizes_of_released_models():
    cfg = Config.fromfile(CONFIGS / 'distill' / 'kpu_vitb_modern.py').model
    dune = Config.fromfile(CONFIGS / 'distill' / 'dune_vitb.py').model
    with untrained():
        sam, depth, hmr = map(
            MODELS.build, (cfg.teachers.sam, dune.teachers.depth, dune.teachers.multi_hmr)
        )
        dinov3 = TransformersViT(cfg.student.sentinel)
    assert (sam.channels, sam.strides) == ((256, 256, 256), (4, 8, 16))
    assert (depth.channels, hmr.channels, hmr.summary_channels) == ((1024,), (1024,), None)
    millions = [
        round(sum(p.numel() for p in model.parameters()) / 1e6)
        for model in (sam.model, depth.model.encoder, hmr.model, dinov3.model)
    ]
    # published: 69 (with the neck), ViT-L 302 to 304, ViT-B 86
    assert millions == [69, 302, 304, 86]


def test_the_step_waits_once_and_late(counted):
    # for the values of the log, when the backward pass is on its way
    (((what, place), times),) = counted.waits.items()
    assert (what, times) == ('an event', 1)
    assert place.startswith('kpu_mm/models/multi_stream_model.py:')


def test_the_second_forward_of_famo(counted, run_config):
    """It keeps the random state of a GPU, too; student and projectors run again."""
    cfg = Config.fromfile(run_config)
    cfg.model.balancer = dict(type='kpu_mm.FAMOBalancer')
    cfg.default_hooks.second_loss = dict(type='kpu_mm.SecondLossHook')
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        found = rehearse.rehearse(cfg)
    assert not found.mistakes

    def forward(report, part):
        kernels = (k for k in report.kernels if k.part.startswith(part) and not k.backward)
        return sum(k.flops for k in kernels)

    assert forward(found, 'student') == 2 * forward(counted, 'student')
    assert forward(found, 'teachers') == forward(counted, 'teachers')


def test_finds_a_wait_and_a_wrong_device(run_config, monkeypatch):
    losses = KPUDistiller.teacher_losses

    def wrong(self, compared):
        found = losses(self, compared)
        found['dino'].mean().item()
        return {name: loss + torch.ones(1) for name, loss in found.items()}

    monkeypatch.setattr(KPUDistiller, 'teacher_losses', wrong)
    found, line = count(run_config), wrong.__code__.co_firstlineno + 2
    file = 'tests/test_tools/test_rehearse.py'
    assert found.waits['.item()', f'{file}:{line}'] == 1
    what = 'found two different devices cuda:0, cpu in add'
    assert found.mistakes[what, f'{file}:{line + 1}'] == 2


def test_a_batch_that_does_not_fit(counted, run_config, monkeypatch, capsys):
    memory = (report.CONTEXT + 0.9 * counted.peak) / report.USABLE / report.GIB
    small = GPU('small', memory, 100, 10, 5, 1)
    monkeypatch.setitem(rehearse.GPUS, 'h100', small)
    monkeypatch.setattr(sys, 'argv', [TOOL, str(run_config)])
    with pytest.raises(SystemExit) as end:
        rehearse.main()
    assert end.value.code == 1
    assert 'On one small the batch DOES NOT FIT' in capsys.readouterr().out


@pytest.mark.parametrize(('tf32', 'rate'), [(True, 495), (False, 67)])
def test_float32_products_take_the_time_of_the_run_s_precision(
    tf32, rate, run_config, monkeypatch, tmp_path, capsys
):
    product = Kernel('mm', 'student', False, 10**15, 1, torch.float32)
    counted = Report([product], {}, {}, dict(student=1), {'images': 4}, 1, {})
    monkeypatch.setattr(rehearse, 'rehearse', lambda cfg, gpus: counted)
    line = [TOOL, str(run_config), '--json', str(tmp_path / 'found.json')]
    monkeypatch.setattr(sys, 'argv', [*line, '--cfg-options', f'env_cfg.tf32={tf32}'])
    try:
        rehearse.main()
    finally:
        torch.set_float32_matmul_precision('highest')
    seconds = json.loads((tmp_path / 'found.json').read_text())['seconds']['h100']
    assert seconds == pytest.approx(1e15 / (0.6e12 * rate))


def test_trained_parameters():
    cfg = Config.fromfile(CONFIGS / 'distill' / 'kpu_vitb.py')
    with untrained():
        model = MODELS.build(cfg.model)
    # the paper's 13.6 M, without teachers and sentinel
    assert rehearse.trained_of(model)['student'] == 13_680_608


def test_what_fits():
    gib = 2**30
    counted = Report([], {}, {}, dict(weights=2 * gib, student=7 * gib), {'images': 4}, 1, {})
    gpu = GPU('round', 10, 1, 1, 1, 1)
    # 9.4 GiB of use, 1 of them CUDA's and 2 the weights'
    assert counted.share_that_fits(gpu) == pytest.approx(6.4 / 7)


def test_refusals(run_config, monkeypatch, capsys):
    knn = CONFIGS / 'downstream' / 'imagenet' / 'knn_kpu-vitb.py'
    assert 'there is nothing to train' in refusal_of(TOOL, [knn], monkeypatch, capsys)
    assert 'sees no GPU' in refusal_of(TOOL, [run_config, '--real'], monkeypatch, capsys)
    options = ['--cfg-options', 'model.teachers.dino.source=no/such-model']
    sentence = refusal_of(TOOL, [run_config, *options], monkeypatch, capsys)
    assert "the architecture of 'no/such-model' is not known" in sentence


# (GB moved, kernels, GiB at the peak), rounded up: lower them with what is saved
BOUNDS = {
    'distill/kpu_vitb': (305, 5330, 21.8),
    'downstream/coco/mask-dino_kpu-vitb_frozen-80k': (159, 10100, 8.5),
    'downstream/multitask/kpu-vitb_learnable-200k': (272, 13750, 21.9),
}


@pytest.mark.slow
@pytest.mark.parametrize('name', BOUNDS)
def test_figures_of_the_main_configs(name):
    found = count(CONFIGS / f'{name}.py')
    traffic, kernels, peak = BOUNDS[name]
    assert not found.mistakes
    assert 0.9 * traffic < found.traffic / 1e9 <= traffic
    assert 0.9 * kernels < len(found.kernels) <= kernels
    assert 0.9 * peak < found.peak / 2**30 <= peak
