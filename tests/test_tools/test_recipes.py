"""Every recipe trains and logs its weights; a killed run resumes bit for bit."""

import pytest
import torch
from mmengine.config import Config

from kpu_mm.weights.checkpoint_file import read_checkpoint
from tests.recipes import CONFIGS, SMALL_MODELS, shrink
from tests.runs import kill_training_at, losses_of, run_tool, write_images

TEACHERS = {
    'base-a_vitb': ('clip', 'grounding_dino', 'dinov2'),
    'base-b_vitb': ('clip', 'grounding_dino'),
    'base-c_vitb': ('clip', 'grounding_dino'),
    'clip-only_vitb': ('clip',),
    'grounding-dino-only_vitb': ('grounding_dino',),
    'unic_vitb': ('dino', 'deit3', 'ibot', 'dbot_ft'),
    'radio_vitb': ('clip', 'siglip', 'dinov2', 'sam'),
    'radio-mixed_vitb': ('clip', 'siglip', 'dinov2', 'sam'),
    'kpu_vitb_modern': ('siglip', 'grounding_dino', 'sam'),
    'dune_vitb': ('dinov2', 'depth', 'multi_hmr'),
    'siglino_vitb': ('siglip', 'dinov3'),
}


@pytest.fixture
def models(request):
    return {name: request.getfixturevalue(f'{name}_dir') for name in SMALL_MODELS}


def write_config(name, models, folder):
    write_images(folder / 'images', 6)
    cfg = shrink(Config.fromfile(CONFIGS / f'{name}.py'), models, folder)
    cfg.merge_from_dict(
        dict(
            load_from=None,
            custom_hooks=[dict(type='kpu_mm.NonFiniteHook')],
            log_processor=dict(window_size=1),
            train_cfg=dict(max_iters=6),
            default_hooks=dict(
                logger=dict(interval=1),
                checkpoint=dict(interval=2),
                normalizer_fit=dict(num_images=24),
            ),
        )
    )
    if isinstance(cfg.param_scheduler, list):
        warmup, rest = cfg.param_scheduler
        warmup.end = rest.begin = 2
        rest.T_max = 4
    cfg.dump(folder / 'run.py')
    return folder / 'run.py'


def train(config, work_dir, *args):
    result = run_tool('train.py', config, '--work-dir', work_dir, *args)
    assert result.returncode == 0, result.stderr[-3000:]
    return losses_of(work_dir)


def check_weights(losses, teachers):
    assert set(losses) == set(range(1, 7))
    for row in losses.values():
        weights = [row[f'weight/{teacher}'] for teacher in teachers]
        # TeacherDrop's change from step to step, their sum does not
        assert sum(weights) == pytest.approx(1, abs=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(
    'name',
    [
        'base-a_vitb',
        'base-b_vitb',
        'base-c_vitb',
        'clip-only_vitb',
        'grounding-dino-only_vitb',
        'radio_vitb',
        'unic_vitb',
        'kpu_vitb_modern',
    ],
)
def test_trains_and_logs_its_weights(name, models, tmp_path):
    config = write_config(name, models, tmp_path)
    check_weights(train(config, tmp_path / 'run'), TEACHERS[name])


@pytest.mark.slow
@pytest.mark.parametrize('name', ['radio-mixed_vitb', 'dune_vitb', 'siglino_vitb'])
def test_resumes_after_a_kill(name, models, tmp_path):
    config = write_config(name, models, tmp_path)
    whole, killed = tmp_path / 'whole', tmp_path / 'killed'
    expected = train(config, whole)
    check_weights(expected, TEACHERS[name])
    kill_training_at(killed / 'iter_2.pth', config)
    assert train(config, killed, '--resume') == expected  # bit for bit
    states = [read_checkpoint(folder / 'iter_6.pth')['state_dict'] for folder in (whole, killed)]
    assert states[0].keys() == states[1].keys()
    for key, value in states[0].items():
        assert torch.equal(value, states[1][key]), key
