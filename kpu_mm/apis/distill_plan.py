"""What ``kpu_mm.distill`` chooses: teachers, streams, sizes, batches, precision."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from mmengine.config import Config

from kpu_mm.datasets import CorruptImageError, EncodedImage, UnlabeledImages
from kpu_mm.models.teachers import BaseTeacher, GroundingDINOTeacher
from kpu_mm.models.teachers.base_teacher import build_teacher
from kpu_mm.models.vits import build_vit
from kpu_mm.utils.startup import shipped

# name of a teacher: its class, and the argument that a string fills
KINDS = {
    'clip': ('CLIPTeacher', 'model'),
    'siglip': ('CLIPTeacher', 'model'),
    'dinov2': ('DINOTeacher', 'source'),
    'dinov3': ('DINOTeacher', 'source'),
    'grounding_dino': ('GroundingDINOTeacher', 'source'),
    'mm_grounding_dino': ('GroundingDINOTeacher', 'source'),
    'timm': ('TimmTeacher', 'model'),
    'transformers': ('TransformersTeacher', 'source'),
}
# Images of a step, of crops and of whole images: on a GPU the paper's.
BATCHES = {'cuda': (32, 4), 'cpu': (4, 1)}
# Sides of whole images, as GroundingDINO was trained; smaller for a CPU.
WHOLE = {'cuda': (800, 1333), 'cpu': (256, 448)}
CROP = 224  # of teachers that take any size
_SMALLEST = 224  # whole images of this shortest side are not reduced further
_MEASURED_IMAGES = 50  # of which the size is looked at
_USABLE = {'cuda': 0.9, 'cpu': 0.7}  # of the memory
# Passes over the images, and fewest and most iterations: the paper's at most.
_PASSES = {'cuda': 100, 'cpu': 10}
_ITERS = {'cuda': (200, 40_000), 'cpu': (100, 40_000)}
GIB = 2**30


def teacher_config(name: str, given: str | Mapping[str, Any]) -> dict[str, Any]:
    """The config of a teacher that a user names.

    Args:
        name: Its name, one of :data:`KINDS` where the model is a string.
        given: A hub name or folder, for CLIP ``MODEL:WEIGHTS``; or a config.

    Raises:
        ValueError: If a string has an unknown name.
    """
    if not isinstance(given, str):
        return dict(given)
    if name not in KINDS:
        raise ValueError(
            f"There is no kind of teacher '{name}'; name one of {', '.join(KINDS)}, or give "
            'a config, dict(type=...).'
        )
    kind, argument = KINDS[name]
    config = dict(type=f'kpu_mm.{kind}')
    if kind != 'CLIPTeacher':
        return config | {argument: given}
    if Path(given).expanduser().is_dir():
        return config | dict(model=f'local-dir:{Path(given).expanduser().absolute()}')
    model, _, weights = given.partition(':')
    if model in ('hf-hub', 'local-dir') or not weights:
        return config | dict(model=given)
    return config | dict(model=model, pretrained=weights)


def image_sources(images: Any) -> list[dict[str, Any]]:
    """Sources of folders, lists of files, tar shards or configs of sources.

    Args:
        images: A path, a config, or several of them.

    Raises:
        ValueError: If a path does not exist.
    """
    sources = []
    for item in images if isinstance(images, list | tuple) else [images]:
        if isinstance(item, Mapping):
            sources.append(dict(item))
            continue
        path = Path(item).expanduser().absolute()
        if path.is_dir():
            sources.append(dict(type='kpu_mm.FolderSource', root=str(path)))
        elif path.suffix == '.txt' and path.is_file():
            sources.append(dict(type='kpu_mm.ListSource', list_file=str(path)))
        elif '.tar' in path.name:
            sources.append(dict(type='kpu_mm.TarSource', shards=str(path)))
        else:
            raise ValueError(
                f"images: '{item}' is no folder, no .txt list and no .tar; correct it."
            )
    return sources


def make_config(
    images: Any,
    teachers: Mapping[str, Any],
    sentinel: Any,
    device: str,
    seed: int,
    gpus: int,
    backends: Sequence[str],
) -> tuple[Config, int]:
    """The config of a distillation that nobody has written by hand.

    Args:
        images: As :func:`image_sources` takes them.
        teachers: For each name a model or a config.
        sentinel: As KPUBackbone takes it.
        device: 'cuda' or 'cpu'.
        seed: Seed of the run.
        gpus: Number of processes.
        backends: Further visual backends of MMEngine.

    Returns:
        The config, but for what :func:`schedule` adds, and the number of
        images.

    Raises:
        OSError: If the files of a model are missing.
        ValueError: If there is no teacher, or no image, or a teacher's name
            is unknown.
    """
    if not teachers:
        raise ValueError('teachers: name one at least, such as clip=ViT-B-16:openai.')
    sources = image_sources(images)
    dataset = UnlabeledImages(sources, [])
    configs = {name: teacher_config(name, given) for name, given in teachers.items()}
    # Built, or looked for, once before anything is written: it names what is
    # missing, and the rehearsal finds the models of the hub in its cache.
    built = {name: build_teacher(name, config) for name, config in configs.items()}
    build_vit(sentinel)
    streams, shared = _streams(built, sources, _shortest_side(dataset), device)
    half = device == 'cuda' and torch.cuda.is_bf16_supported(including_emulation=False)
    optimizer = {} if half else dict(optim_wrapper=dict(type='OptimWrapper'))
    norm = dict(norm_cfg=dict(type='SyncBN')) if gpus > 1 else {}
    names = ['LocalVisBackend', *backends]
    cfg = Config(
        dict(
            _base_=['kpu_mm::_base_/schedules/kpu_40k.py', 'kpu_mm::_base_/default_runtime.py'],
            model=dict(
                type='kpu_mm.KPUDistiller',
                student=dict(type='kpu_mm.KPUBackbone', sentinel=sentinel, **norm),
                teachers=configs,
                streams=shared,
                projector=dict(type='kpu_mm.MLPProjector'),
            ),
            train_dataloader=streams,
            **optimizer,
            randomness=dict(seed=seed),
            visualizer=dict(vis_backends=[dict(type=name) for name in names]),
        )
    )
    return cfg, len(dataset)


def schedule(iters: int) -> dict[str, Any]:
    """The part of a config that depends on the number of iterations.

    Args:
        iters: Iterations.
    """
    return dict(
        param_scheduler=dict(T_max=iters),
        train_cfg=dict(max_iters=iters),
        default_hooks=dict(
            logger=dict(interval=max(1, min(50, iters // 20))),
            checkpoint=dict(interval=max(1, min(1000, iters // 4))),
            norm_eval=dict(type='kpu_mm.NormEvalHook', window=max(1, min(200, iters // 4))),
        ),
        custom_hooks=[
            dict(type='kpu_mm.NonFiniteHook'),
            dict(type='kpu_mm.SkippedImagesHook'),
            dict(type='kpu_mm.FeaturePCAHook', interval=max(1, iters // 4)),
            dict(type='kpu_mm.ProgressHook'),
        ],
    )


def choose_iters(streams: Mapping[str, Any], images: int, device: str, gpus: int) -> int:
    """Choose the iterations by the passes over the images.

    Args:
        streams: The dataloader of each stream.
        images: Number of images.
        device: 'cuda' or 'cpu'.
        gpus: Number of processes, each of which reads a batch.
    """
    largest = max(stream['batch_size'] for stream in streams.values())
    low, high = _ITERS[device]
    return min(max(_PASSES[device] * images // (largest * gpus), low), high)


def _shortest_side(dataset: UnlabeledImages) -> int:
    """Median of the shorter sides of some images."""
    sides: list[int] = []
    for source in dataset.sources:
        step = max(1, len(source) // _MEASURED_IMAGES)
        for index in range(0, len(source), step):
            try:
                sides.append(min(EncodedImage(source.read(index)).size))
            except CorruptImageError:  # the run will name it
                continue
    return int(statistics.median(sides))


def _streams(
    teachers: Mapping[str, BaseTeacher], sources: list[dict[str, Any]], shortest: int, device: str
) -> tuple[dict[str, Any], dict[str, str]]:
    """A stream for each size of images, and the teachers that share one."""
    crops, wholes = BATCHES[device]
    # a small image is not enlarged
    ratio = min(1.0, shortest / WHOLE[device][0])
    streams: dict[str, Any] = {}
    shared: dict[str, str] = {}
    first: dict[tuple[int, ...], str] = {}  # the teacher that each size came with
    for name, teacher in teachers.items():
        whole = isinstance(teacher, GroundingDINOTeacher)
        if whole:
            size = tuple(int(side * ratio) for side in WHOLE[device])
            transform = dict(type='kpu_mm.DecodeResize', shortest=size[0], longest=size[1])
        else:
            size = (max(teacher.resolution or (CROP,)),)
            transform = dict(type='kpu_mm.DecodeRandomResizedCrop', size=size[0])
        if first.setdefault(size, name) != name:
            shared[name] = first[size]
            continue
        batch = wholes if whole else crops
        streams[name] = dict(
            batch_size=batch,
            num_workers=2,
            dataset=dict(
                type='kpu_mm.UnlabeledImages',
                sources=sources,
                group_size=batch if whole else 1,
                pipeline=[
                    transform,
                    dict(type='mmcv.RandomFlip', prob=0.5),
                    dict(type='kpu_mm.PackImage'),
                ],
            ),
        )
    return streams, shared


def memory(device: str) -> float:
    """Bytes that a run may use.

    Args:
        device: 'cuda' or 'cpu'.
    """
    if device == 'cuda':
        return _USABLE[device] * torch.cuda.get_device_properties(0).total_memory
    lines = Path('/proc/meminfo').read_text().splitlines()
    (available,) = (line.split()[1] for line in lines if line.startswith('MemAvailable:'))
    return _USABLE[device] * int(available) * 1024


def fit_to_memory(cfg: Config, usable: float, gpus: int = 1) -> float:
    """Reduce batches, then sizes, until a rehearsed step fits; in place.

    Args:
        cfg: The config.
        usable: Bytes that the step may use.
        gpus: Number of processes. Defaults to 1.

    Returns:
        Bytes of the step.

    Raises:
        ValueError: If the smallest step does not fit.
    """
    while (needed := _rehearse(cfg, gpus)) > usable:
        if not _reduce(cfg.train_dataloader):
            raise ValueError(
                f'The smallest step needs {needed / GIB:.1f} GiB and {usable / GIB:.1f} GiB can '
                'be used; take fewer or smaller teachers, or another machine.'
            )
    return needed


def _reduce(streams: Any) -> bool:
    """Halve the batches, or reduce whole images to two thirds; False if done."""
    larger = [stream for stream in streams.values() if stream.batch_size > 1]
    for stream in larger:
        stream.batch_size //= 2
        stream.dataset.group_size = min(stream.dataset.group_size, stream.batch_size)
    if larger:
        return True
    transforms = [stream.dataset.pipeline[0] for stream in streams.values()]
    wholes = [t for t in transforms if t.get('shortest', 0) > _SMALLEST]
    for transform in wholes:
        for side in ('shortest', 'longest'):
            transform[side] = transform[side] * 2 // 3
    return bool(wholes)


def _rehearse(cfg: Config, gpus: int) -> float:
    """Bytes of one step, by tools/analysis_tools/rehearse.py."""
    with TemporaryDirectory() as folder:
        config, found = Path(folder, 'config.py'), Path(folder, 'memory.json')
        config.write_text(cfg.pretty_text, encoding='utf-8')
        tool = shipped('tools/analysis_tools/rehearse.py')
        command = [sys.executable, str(tool), str(config), f'--gpus={gpus}', f'--json={found}']
        run = subprocess.run(command, capture_output=True, text=True)
        # it exits with 1 where the step does not fit one of its own GPUs
        if not found.is_file():
            lines = run.stderr.strip().splitlines() or [f'exit code {run.returncode}']
            raise RuntimeError(f'A step of the run cannot be taken: {lines[-1]}')
        peak: float = json.loads(found.read_text())['peak']
    return peak
