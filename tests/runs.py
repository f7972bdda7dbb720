"""A tiny distillation run on made-up images, as a config file."""

from __future__ import annotations

import json
import os
import re
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

CONFIG = """
_base_ = {base!r}
model = dict(
    student=dict(sentinel={sentinel!r}, inplanes=8,
                 norm_cfg=dict(_delete_=True, type='GN', num_groups=4),
                 drop_path_rate=0.2),
    teachers=dict(_delete_=True, dino={teacher}, coarse={teacher}),
    projector=dict(hidden=16),
)
train_dataloader = dict(
    _delete_=True,
    dino=dict(batch_size=4, num_workers=2, dataset={dataset}),
    coarse=dict(batch_size=2, num_workers=0, dataset={dataset}),
)
optim_wrapper = dict(type='OptimWrapper')
param_scheduler = dict(T_max=12)
train_cfg = dict(max_iters=12)
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(interval=4))
custom_hooks = [dict(type='kpu_mm.NonFiniteHook'),
                dict(type='kpu_mm.SkippedImagesHook', interval=3)]
"""
DATASET = """dict(
        type='kpu_mm.UnlabeledImages',
        sources=dict(type='kpu_mm.FolderSource', root={root!r}),
        pipeline=[dict(type='kpu_mm.DecodeRandomResizedCrop', size=56),
                  dict(type='mmcv.RandomFlip', prob=0.5),
                  dict(type='kpu_mm.PackImage')])"""
ROOT = Path(__file__).parents[1]
BASE = ROOT / 'configs' / 'distill' / 'kpu_vitb.py'
ENV = dict(
    os.environ,
    PYTHONPATH=str(ROOT),
    OMP_NUM_THREADS='1',
    CUDA_VISIBLE_DEVICES='',
    # for what the launchers' scripts call
    PYTHON=sys.executable,
)


def write_images(folder: Path, count: int = 12) -> None:
    """Coloured noise of several sizes."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(count):
        coarse = rng.integers(0, 256, (8, 6 + i % 3, 3), dtype=np.uint8)
        image = Image.fromarray(coarse).resize((90 + 5 * i, 80))
        image.save(folder / f'{i:02d}.jpg', quality=95)


@pytest.fixture(scope='session')
def run_config(tmp_path_factory, dinov2_dir: Path) -> Path:
    """A config file with its images beside it."""
    folder = tmp_path_factory.mktemp('run')
    write_images(folder / 'images')
    # The run skips two: one is too long, and of the other pixels are lost.
    Image.new('RGB', (48, 1)).save(folder / 'images' / 'long.png')
    whole = (folder / 'images' / '00.jpg').read_bytes()
    (folder / 'images' / 'damaged.jpg').write_bytes(whole[: len(whole) // 2] + whole[-2:])
    path = folder / 'run.py'
    path.write_text(
        CONFIG.format(
            base=str(BASE),
            sentinel=str(dinov2_dir),
            teacher=dict(type='kpu_mm.DINOTeacher', source=str(dinov2_dir)),
            dataset=DATASET.format(root=str(folder / 'images')),
        )
    )
    return path


def losses_of(work_dir: Path) -> dict[int, dict[str, float]]:
    """Logged values of all runs in a work directory, by iteration.

    Each iteration's own loss, not LoggerHook's running mean: the window of
    the log is one iteration.
    """
    rows: dict[int, dict[str, float]] = {}
    for path in sorted(work_dir.glob('*/vis_data/scalars.json')):
        for line in path.read_text().splitlines():
            row = json.loads(line)
            # a validation logs at the step that it follows
            rows.setdefault(row['step'], {}).update(
                (key, value)
                for key, value in row.items()
                if re.search('loss|^s2t|^t2s|^rec|^std|^weight', key)
            )
    return rows


def metrics_of(work_dir: Path) -> dict[str, float]:
    """Metrics of the last evaluation in a work directory, tests or not."""
    (*_, path) = sorted(work_dir.glob('*/*.json'))
    return {
        key: value
        for key, value in json.loads(path.read_text()).items()
        if not key.endswith('time')
    }


def run_tool(tool: str, *arguments: object, **env: str):
    """Run a Python or shell script of ``tools`` to its end, as a process."""
    program = 'bash' if tool.endswith('.sh') else sys.executable
    return subprocess.run(
        [program, str(ROOT / 'tools' / tool), *map(str, arguments)],
        env={**ENV, **env},
        capture_output=True,
        text=True,
    )


def refusal_of(tool: str, arguments: list[object], monkeypatch, capsys) -> str:
    """The sentence with which a tool turns down its arguments.

    In this process, which has imported already what a tool imports.
    """
    path = str(ROOT / 'tools' / tool)
    monkeypatch.setattr(sys, 'argv', [path, *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(path, run_name='__main__')
    assert end.value.code == 2
    return capsys.readouterr().err.splitlines()[-1]


def kill_training_at(checkpoint: Path, config: Path, *arguments: str) -> None:
    """Train into the checkpoint's folder; kill -9 as soon as it is there."""
    process = subprocess.Popen(
        [
            sys.executable,
            str(ROOT / 'tools' / 'train.py'),
            str(config),
            '--work-dir',
            str(checkpoint.parent),
            *arguments,
        ],
        env=ENV,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.time() + 240
    while not checkpoint.exists():
        assert process.poll() is None and time.time() < deadline
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
