"""The decoders of the lab's configs learn on the trained micro sentinel."""

import pytest
from mmengine.config import Config
from mmengine.runner import Runner

from projects.micro_lab.make_digit_scenes import write_digit_scenes
from projects.micro_lab.reproduce import CONFIGS

SCENES = 16


@pytest.mark.slow
def test_decoders_reach_floors_on_the_scenes_they_learn(tmp_path, monkeypatch):
    """120 iterations; Mask DINO knows a scene after some 60 looks at it."""
    scenes = tmp_path / 'scenes'
    for split in ('train', 'test'):
        write_digit_scenes(scenes / split, 'train', 0, SCENES, 64)
    monkeypatch.setenv('KPU_MM_DIGITS', str(scenes))
    config = Config.fromfile(CONFIGS / 'tasks_dinov2.py')
    config.work_dir = str(tmp_path / 'run')
    config.randomness = dict(seed=0)
    config.param_scheduler.T_max = 120
    config.train_cfg.update(max_iters=120, val_interval=120)
    config.default_hooks.checkpoint.interval = 120
    runner = Runner.from_cfg(config)
    runner.train()
    found = runner.message_hub.log_scalars
    for name, floor in {
        'detection/coco/bbox_mAP': 0.45,
        'detection/coco/segm_mAP': 0.45,
        'segmentation/mIoU': 60,
        'classification/accuracy/top1': 95,
    }.items():
        assert found[f'val/{name}'].current() > floor, name
