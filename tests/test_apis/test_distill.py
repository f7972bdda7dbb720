"""One call, from images to an exported student."""

import json
import os
import shutil
import subprocess
import sys

import pytest
import torch
from mmengine.config import Config
from PIL import Image

import kpu_mm
from kpu_mm.apis import distill, distill_plan
from kpu_mm.models.backbones import load_exported

ITERS = 4
VIT = dict(model_type='dinov2', hidden_size=24, num_hidden_layers=4, num_attention_heads=2)


@pytest.fixture(scope='module')
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp('photos')
    for i in range(6):
        noise = torch.randint(256, (40, 60, 3), dtype=torch.uint8)
        Image.fromarray(noise.numpy()).save(folder / f'{i}.png')
    return folder


@pytest.fixture(scope='module')
def command(photos, dinov2_dir, clip_dir, grounding_dino_dir):
    """The command without --out."""
    teachers = [f'clip={clip_dir}', f'grounding_dino={grounding_dino_dir}']
    line = [sys.executable, '-m', 'kpu_mm.cli', 'distill', '--images', str(photos)]
    line += ['--sentinel', str(dinov2_dir), '--teachers', *teachers, '--iters', str(ITERS)]
    return [*line, '--cfg-options', 'model.projector.hidden=16', 'model.student.inplanes=8']


@pytest.fixture(scope='module')
def environment(tmp_path_factory):
    """Only distillation is installed, and there is no GPU."""
    folder = tmp_path_factory.mktemp('site')
    missing = ['mmdet', 'mmseg', 'mmpretrain', 'mmcv.ops', 'mmcv._ext']
    text = f'import sys\nsys.modules.update(dict.fromkeys({missing}))\n'
    (folder / 'sitecustomize.py').write_text(text)
    return dict(os.environ, CUDA_VISIBLE_DEVICES='', PYTHONPATH=str(folder))


def run(command, folder, env):
    line = [*command, '--out', str(folder)]
    return subprocess.run(line, capture_output=True, text=True, env=env)


@pytest.fixture(scope='module')
def finished(command, environment, tmp_path_factory):
    out = tmp_path_factory.mktemp('runs') / 'first'
    done = run(command, out, environment)
    assert done.returncode == 0, done.stderr[-2000:]
    return out, done


def test_a_student_is_there_at_the_end(finished):
    out, done = finished
    text = done.stdout + done.stderr
    # the photographs have 40 rows and are not enlarged
    assert '1 images of 40 to 70 pixels a step for grounding_dino.' in text
    assert f'{ITERS} steps on cpu in float32' in text
    backbone = load_exported(out / 'student')
    features = backbone.encode(torch.rand(1, 3, 64, 64) * 255)
    assert len(features.maps) == 4
    assert (out / 'student' / 'README.md').is_file()
    assert (out / 'losses.png').is_file()
    assert list(out.glob('**/*pca*')) or list(out.glob('**/vis_data/vis_image/*'))


def test_the_config_is_an_ordinary_one(finished):
    out, _ = finished
    cfg = Config.fromfile(out / 'config.py')
    assert cfg.runner_type == 'kpu_mm.KPURunner'
    assert cfg.train_cfg.max_iters == cfg.param_scheduler.T_max == ITERS
    assert cfg.model.projector.hidden == 16


def test_called_again_it_has_nothing_to_do(finished, command, environment):
    out, _ = finished
    again = run(command, out, environment)
    assert again.returncode == 0
    assert 'nothing is left to do' in again.stdout + again.stderr


def weights(student):
    state = load_exported(student).state_dict()
    return {name: value for name, value in state.items() if value.is_floating_point()}


def test_a_run_that_was_killed_goes_on(finished, tmp_path):
    """As if it had ended after its first checkpoint."""
    out, _ = finished
    given = json.loads((out / 'arguments.json').read_text())
    broken = tmp_path / 'broken'
    broken.mkdir()
    for name in ('arguments.json', 'config.py', 'iter_1.pth', 'iter_2.pth'):
        if (out / name).is_file():
            (broken / name).write_bytes((out / name).read_bytes())
    # which a kill may leave behind, or name a folder that was moved
    (broken / 'last_checkpoint').write_text('gone/iter_1.pth')
    # a kill may leave half a line of the log
    log = broken / '20260101_000000' / 'vis_data'
    log.mkdir(parents=True)
    (log / 'scalars.json').write_text('{"step": 1, "loss": 5.0}\n{"step": 2, "lo')
    wanted = weights(out / 'student')
    student = kpu_mm.distill(out=broken, **given)
    found = weights(student)
    assert wanted and all(torch.equal(found[key], value) for key, value in wanted.items())
    # and as if it had ended before the export
    shutil.rmtree(student)
    found = weights(kpu_mm.distill(out=broken, **given))
    assert all(torch.equal(found[key], value) for key, value in wanted.items())


def test_other_arguments_are_refused(finished, command, environment):
    out, _ = finished
    other = run([*command, '--seed', '3'], out, environment)
    assert other.returncode == 2
    assert 'holds a run with other seed' in other.stderr


@pytest.mark.parametrize(
    ('changed', 'sentence'),
    [
        (dict(teachers=dict(sam='facebook/sam')), "no kind of teacher 'sam'"),
        (dict(teachers={}), 'name one at least'),
        (dict(images='/nowhere'), "'/nowhere' is no folder"),
        (dict(loggers=('carbon',)), "no logger 'carbon'"),
        (dict(teachers=dict(clip='ViT-B-61:openai')), "no model 'ViT-B-61'"),
        (dict(gpus=64), 'gpus=64, but torch sees'),
    ],
)
def test_wrong_arguments(changed, sentence, photos, clip_dir, tmp_path):
    arguments = dict(images=str(photos), teachers=dict(clip=str(clip_dir)), out=tmp_path / 'out')
    with pytest.raises(ValueError, match=sentence):
        kpu_mm.distill(**{**arguments, **changed})
    assert not (tmp_path / 'out').exists()


def test_an_empty_folder(clip_dir, tmp_path):
    (tmp_path / 'empty').mkdir()
    with pytest.raises(ValueError, match='empty'):
        kpu_mm.distill(tmp_path / 'empty', dict(clip=str(clip_dir)), tmp_path / 'out')


def test_batches_and_sizes_shrink_until_they_fit(
    photos, clip_dir, grounding_dino_dir, tmp_path, monkeypatch
):
    """The memory of a step is taken as its pixels."""

    def pixels(cfg, gpus):
        total = 0
        for stream in cfg.train_dataloader.values():
            first = stream.dataset.pipeline[0]
            side = first.get('size') or first.shortest
            total += stream.batch_size * side**2
        return total

    monkeypatch.setattr(distill_plan, '_rehearse', pixels)
    monkeypatch.setattr(distill_plan, '_shortest_side', lambda dataset: 10_000)
    teachers = dict(clip=str(clip_dir), grounding_dino=str(grounding_dino_dir))
    given = str(photos), teachers, VIT, 'cuda', 0, 1, []
    # Without an own one the base config's is left, in bfloat16.
    for bfloat16, own in ((False, dict(type='OptimWrapper')), (True, None)):
        monkeypatch.setattr(
            'torch.cuda.is_bf16_supported', lambda including_emulation, has=bfloat16: has
        )
        cfg, images = distill_plan.make_config(*given)
        assert cfg.get('optim_wrapper') == own
    assert images == 6
    assert {n: s.batch_size for n, s in cfg.train_dataloader.items()} == {
        'clip': 32,
        'grounding_dino': 4,
    }
    assert distill_plan.fit_to_memory(cfg, 2.0 * 800**2) <= 2.0 * 800**2
    detection = cfg.train_dataloader.grounding_dino
    assert detection.batch_size == detection.dataset.group_size == 1
    assert detection.dataset.pipeline[0].shortest == 800
    distill_plan.fit_to_memory(cfg, 1.0 * 700**2)
    assert detection.dataset.pipeline[0].shortest == 533
    with pytest.raises(ValueError, match='smallest step needs'):
        distill_plan.fit_to_memory(cfg, 10.0)


@pytest.mark.parametrize(
    ('batch', 'images', 'device', 'gpus', 'iters'),
    [
        (32, 3200, 'cuda', 1, 10_000),  # 100 passes of 100 batches
        (32, 3200, 'cuda', 4, 2_500),  # as many, each batch of 4 times 32
        (8, 3200, 'cuda', 4, 10_000),
        (4, 400, 'cpu', 1, 1_000),  # 10 passes
        (32, 6, 'cuda', 1, 200),
        (32, 10**7, 'cuda', 1, 40_000),
    ],
)
def test_iterations_follow_the_passes(batch, images, device, gpus, iters):
    streams = dict(clip=dict(batch_size=batch), grounding_dino=dict(batch_size=1))
    assert distill_plan.choose_iters(streams, images, device, gpus) == iters
    assert distill_plan.schedule(iters)['param_scheduler']['T_max'] == iters


def test_smaller_batches_get_more_iterations(photos, clip_dir, tmp_path, monkeypatch):
    """The memory of a step is taken as its images, and three of them fit."""
    monkeypatch.setattr(
        distill_plan, '_rehearse', lambda cfg, gpus: cfg.train_dataloader.clip.batch_size
    )
    monkeypatch.setattr(distill, 'memory', lambda device: 3)
    monkeypatch.setattr(distill_plan, '_ITERS', dict(cpu=(1, 40_000)))
    given = dict(images=str(photos), teachers=dict(clip=str(clip_dir)), sentinel=VIT, iters=None)
    given |= dict(seed=0, gpus=1, loggers=[], options={'train_dataloader.clip.num_workers': 0})
    cfg = distill._open_run(tmp_path / 'out', given)
    assert cfg.train_dataloader.clip.batch_size == 2
    assert cfg.train_dataloader.clip.num_workers == 0
    # 10 passes of 3 batches, in the place of 15 iterations of 4 images
    assert cfg.train_cfg.max_iters == cfg.param_scheduler.T_max == 30


@pytest.mark.parametrize('key', ['train_cfg.max_iters.first', 'env_cfg.cudnn_benchmark.on'])
def test_options_that_do_not_fit_are_refused(photos, clip_dir, tmp_path, key):
    with pytest.raises(ValueError, match='options do not fit the config'):
        kpu_mm.distill(
            str(photos), dict(clip=str(clip_dir)), tmp_path / 'out', VIT, options={key: 1}
        )
    assert not (tmp_path / 'out').exists()


def test_teachers_of_one_size_share_a_stream(photos, clip_dir, dinov2_dir):
    teachers = dict(
        clip=str(clip_dir), dinov2=str(dinov2_dir), siglip=str(clip_dir), dinov3=str(dinov2_dir)
    )
    cfg, _ = distill_plan.make_config(
        [str(photos)], teachers, VIT, 'cpu', 0, 2, ['WandbVisBackend']
    )
    assert set(cfg.train_dataloader) == {'clip', 'dinov2'}
    assert cfg.model.streams == dict(siglip='clip', dinov3='dinov2')
    side = cfg.train_dataloader.dinov2.dataset.pipeline[0].size
    assert side == distill_plan.CROP != cfg.train_dataloader.clip.dataset.pipeline[0].size
    assert cfg.model.student.norm_cfg.type == 'SyncBN'
    assert cfg.visualizer.vis_backends[1].type == 'WandbVisBackend'


def test_a_missing_sentinel_is_named(photos, clip_dir, tmp_path):
    arguments = dict(teachers=dict(clip=str(clip_dir)), sentinel='/nowhere/vit')
    with pytest.raises(FileNotFoundError, match="'/nowhere/vit' does not exist"):
        kpu_mm.distill(str(photos), out=tmp_path / 'out', **arguments)
    assert not (tmp_path / 'out').exists()
