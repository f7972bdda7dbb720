"""``kpu_mm.distill``: from a folder of images to an exported student."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from mmengine.config import Config
from mmengine.logging import print_log

from kpu_mm.datasets.image_table import atomic_file
from kpu_mm.engine.atomic_checkpoints import newest_checkpoint
from kpu_mm.export import read_student, write_student
from kpu_mm.utils.command_line import build_runner
from kpu_mm.utils.startup import shipped

from .distill_plan import GIB, choose_iters, fit_to_memory, make_config, memory, schedule

_BACKENDS = {
    'tensorboard': ('TensorboardVisBackend', 'tensorboard'),
    'wandb': ('WandbVisBackend', 'wandb'),
}


def distill(
    images: Any,
    teachers: Mapping[str, Any],
    out: str | Path,
    sentinel: Any = 'facebook/dinov2-base',
    iters: int | None = None,
    seed: int = 0,
    gpus: int = 1,
    loggers: tuple[str, ...] = (),
    options: Mapping[str, Any] | None = None,
) -> Path:
    """Distil teachers into a student, on unlabelled images.

    KPU (https://arxiv.org/abs/2508.14707). Streams, sizes, batches and
    precision are chosen by the teachers and the memory of the machine, and
    printed. The run is an ordinary one: ``out/config.py`` is a config for
    tools/train.py. Called again with equal arguments, it resumes.

    Args:
        images: A folder, a .txt list of files, a .tar shard, the config of a
            source, or several of them.
        teachers: For each name a model: a hub name, a folder, for CLIP
            ``MODEL:WEIGHTS``; or the config of a teacher.
        out: Folder of config, checkpoints, curves, pictures and the student.
        sentinel: The frozen ViT under the adapter, as KPUBackbone takes it.
            Defaults to DINOv2 ViT-B.
        iters: Iterations. Defaults to None: 100 passes over the images on
            GPUs and 10 on a CPU, 200 and 100 iterations at least, the
            paper's 40,000 at most.
        seed: Seed of the run. Defaults to 0.
        gpus: Processes of this machine, one on each GPU. Defaults to 1.
        loggers: 'tensorboard', 'wandb'. Defaults to ().
        options: Changes of the config that was chosen, as ``--cfg-options``.
            Defaults to None.

    Returns:
        The folder of the exported student, ``out/student``.

    Raises:
        FloatingPointError: If a loss is not finite; with the command that
            continues with another rate.
        ImportError: If a logger is not installed.
        OSError: If a file of a model is missing.
        RuntimeError: If weights are broken.
        ValueError: If there are no images, a teacher is unknown, GPUs or
            memory are too few, options do not fit the config, or ``out``
            holds a run of other arguments.
    """
    out = Path(out).expanduser().absolute()
    several = isinstance(images, list | tuple)
    given = dict(
        images=[_plain(item) for item in images] if several else _plain(images),
        teachers={name: _plain(teacher) for name, teacher in teachers.items()},
        sentinel=_plain(sentinel),
        iters=iters,
        seed=seed,
        gpus=gpus,
        loggers=list(loggers),
        options=dict(options or {}),
    )
    # as they are read again, with lists in the place of tuples
    given = json.loads(json.dumps(given))
    cfg = _open_run(out, given)
    student = out / 'student'
    if student.is_dir():
        print_log(f'{student} is there already; nothing is left to do.')
        return student
    config = out / 'config.py'
    if gpus > 1:
        tool = shipped('tools/train.py')
        launch = [sys.executable, '-m', 'torch.distributed.run', f'--nproc_per_node={gpus}']
        # On a free port, as another run of this machine may have torchrun's own.
        launch += ['--standalone', '--local-addr=127.0.0.1']
        arguments = [str(config), '--work-dir', str(out), '--launcher', 'pytorch', '--resume']
        code = subprocess.run([*launch, str(tool), *arguments]).returncode
        if code:
            start = f'bash {shipped("tools/dist_train.sh")} {config} {gpus}'
            raise RuntimeError(
                f'The processes of the run ended with code {code}, see above. {_how_on(start, out)}'
            )
    else:
        cfg.work_dir, cfg.resume = str(out), 'auto'
        try:
            build_runner(cfg).train()
        except FloatingPointError as error:
            raise FloatingPointError(f'{error} {_how_on(f"kpu-mm train {config}", out)}') from error
    last = newest_checkpoint(out)
    if last is None:
        raise RuntimeError(f'{out} has no checkpoint of the run to export.')
    write_student(read_student(cfg.model.to_dict(), str(last)), student)
    print_log(f'The student is in {student}; its README.md tells how to load it.')
    return student


def _how_on(start: str, out: Path) -> str:
    """Say how a run that stopped continues with other options."""
    return (
        f'To continue with other options, add them to `{start} --work-dir {out} --resume`, and '
        'then call distill again for the export.'
    )


def _plain(value: Any) -> Any:
    """A config as it is, anything else, such as a Path, as text."""
    return dict(value) if isinstance(value, Mapping) else str(value)


def _open_run(out: Path, given: dict[str, Any]) -> Config:
    """The config of a run that was begun, or a new one."""
    record = out / 'arguments.json'
    if record.is_file():
        known = json.loads(record.read_text(encoding='utf-8'))
        changed = sorted(key for key in given if given[key] != known.get(key))
        if changed:
            raise ValueError(
                f"'{out}' holds a run with other {', '.join(changed)}; repeat its arguments "
                '(arguments.json there) or name another folder.'
            )
        return Config.fromfile(out / 'config.py')
    # A run that was killed while it was planned leaves a config alone.
    if out.is_dir() and {path.name for path in out.iterdir()} - {'config.py'}:
        raise ValueError(f"'{out}' holds other files; name a new folder.")
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    if given['gpus'] > max(1, torch.cuda.device_count()):
        raise ValueError(f'gpus={given["gpus"]}, but torch sees {torch.cuda.device_count()} here.')
    for name in given['loggers']:
        if name not in _BACKENDS:
            raise ValueError(f"There is no logger '{name}'; choose from {', '.join(_BACKENDS)}.")
        if find_spec(_BACKENDS[name][1]) is None:
            raise ImportError(f'{name} is not installed: run `pip install {_BACKENDS[name][1]}`.')
    written, images = make_config(
        given['images'],
        given['teachers'],
        given['sentinel'],
        device,
        given['seed'],
        given['gpus'],
        [_BACKENDS[name][0] for name in given['loggers']],
    )
    try:
        _set_iters(written, written.train_dataloader, given, images, device)
        with TemporaryDirectory() as folder:
            # Read as the file it becomes, so that what is rehearsed is what runs.
            trial = Path(folder, 'config.py')
            trial.write_text(written.pretty_text, encoding='utf-8')
            cfg = Config.fromfile(trial)
    except (IndexError, KeyError, TypeError) as error:
        if not given['options']:
            raise
        raise ValueError(f'The options do not fit the config: {error}') from error
    usable = memory(device)
    needed = fit_to_memory(cfg, usable, given['gpus'])
    # smaller batches need more iterations for as many passes
    _set_iters(written, cfg.train_dataloader, given, images, device)
    written.train_dataloader = cfg.train_dataloader
    out.mkdir(parents=True, exist_ok=True)
    (out / 'config.py').write_text(written.pretty_text, encoding='utf-8')
    cfg = Config.fromfile(out / 'config.py')
    _say(cfg, device, needed, usable)
    # Last, as it is what tells that the config is complete.
    with atomic_file(record) as file:
        file.write(json.dumps(given, indent=1).encode())
    return cfg


def _set_iters(
    cfg: Config, streams: Mapping[str, Any], given: Mapping[str, Any], images: int, device: str
) -> None:
    """Set the iterations, then what the user's options change."""
    iters = given['iters']
    if iters is None:
        iters = choose_iters(streams, images, device, given['gpus'])
    cfg.merge_from_dict(schedule(iters))
    cfg.merge_from_dict(given['options'])


def _say(cfg: Config, device: str, needed: float, usable: float) -> None:
    """Print what was chosen."""
    shared = cfg.model.streams
    for name, stream in cfg.train_dataloader.items():
        first = stream.dataset.pipeline[0]
        size = first.get('size') or f'{first.shortest} to {first.longest}'
        names = ' and '.join([name, *(t for t, s in shared.items() if s == name)])
        print_log(f'{stream.batch_size} images of {size} pixels a step for {names}.')
    half = 'Autocast' in cfg.optim_wrapper.type
    print_log(
        f'{cfg.train_cfg.max_iters} steps on {device} in {"bfloat16" if half else "float32"}; a '
        f'step was rehearsed: {needed / GIB:.1f} of {usable / GIB:.1f} GiB.'
    )
