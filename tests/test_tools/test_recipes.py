"""Every recipe trains, logs its weights, and resumes as if nothing had been."""

import pytest
import torch
from mmengine.config import Config

from kpu_mm.models.pretrained import read_checkpoint
from tests.recipes import CONFIGS, shrink
from tests.runs import kill_training_at, losses_of, run_tool, write_images

TEACHERS = {
    'kpu_vitb': ('clip', 'grounding_dino'),
    'base-a_vitb': ('clip', 'grounding_dino', 'dinov2'),
    'base-b_vitb': ('clip', 'grounding_dino'),
    'base-c_vitb': ('clip', 'grounding_dino'),
    'clip-only_vitb': ('clip',),
    'grounding-dino-only_vitb': ('grounding_dino',),
    'unic_vitb': ('dino', 'deit3', 'ibot', 'dbot_ft'),
    'radio_vitb': ('clip', 'siglip', 'dinov2', 'sam'),
    'radio-mixed_vitb': ('clip', 'siglip', 'dinov2', 'sam'),
}


@pytest.fixture
def models(dinov2_dir, clip_dir, grounding_dino_dir):
    return dict(
        dinov2=dinov2_dir, clip=clip_dir, grounding_dino=grounding_dino_dir
    )


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
                normalizer_fit=dict(num_images=8),
            ),
        )
    )
    cfg.dump(folder / 'run.py')
    return folder / 'run.py'


@pytest.mark.slow
@pytest.mark.parametrize('name', TEACHERS)
def test_trains_and_resumes_after_a_kill(name, models, tmp_path):
    config = write_config(name, models, tmp_path)
    whole, killed = tmp_path / 'whole', tmp_path / 'killed'
    result = run_tool('train.py', config, '--work-dir', whole)
    assert result.returncode == 0, result.stderr[-3000:]
    kill_training_at(killed / 'iter_2.pth', config)
    result = run_tool('train.py', config, '--work-dir', killed, '--resume')
    assert result.returncode == 0, result.stderr[-3000:]

    expected = losses_of(whole)
    assert set(expected) == set(range(1, 7))
    assert losses_of(killed) == expected  # bit for bit
    states = [
        read_checkpoint(folder / 'iter_6.pth')['state_dict']
        for folder in (whole, killed)
    ]
    assert states[0].keys() == states[1].keys()
    for key, value in states[0].items():
        assert torch.equal(value, states[1][key]), key
    for row in expected.values():
        weights = [row[f'weight/{teacher}'] for teacher in TEACHERS[name]]
        # TeacherDrop's weights change from step to step, their sum does not
        assert sum(weights) == pytest.approx(1, abs=1e-3)
