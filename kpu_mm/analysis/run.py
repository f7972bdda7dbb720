"""From a tool's arguments to models and images."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from itertools import chain
from typing import Any

from mmengine.config import Config

from kpu_mm.models.kpu_distiller import KPUDistiller
from kpu_mm.models.teacher_streams import TeacherStreams

from .batches import Batch, find_sources, first_batches, whole_images
from .distilled import load_distiller


def open_run(args: argparse.Namespace, cfg: Config) -> KPUDistiller:
    """Load the distiller of a run, in float32.

    Args:
        args: With ``config``, ``checkpoint`` and ``device``.
        cfg: The config.

    Raises:
        FileNotFoundError: If weights are missing.
        RuntimeError: If a file is broken or does not belong to the config.
        ValueError: If the config is not that of a distiller.
    """
    if 'model' not in cfg:
        raise ValueError(f'{args.config} has no `model`.')
    return load_distiller(cfg.model, args.checkpoint, args.device)


def teacher_batches(
    args: argparse.Namespace, cfg: Config
) -> dict[str, Iterator[Batch]]:
    """The first images of each teacher's streams, as training sees them.

    Args:
        args: With ``config``, ``num_images``, ``seed`` and ``device``.
        cfg: The config.

    Raises:
        ValueError: If a teacher has no stream.
    """
    model, loaders = cfg.get('model', {}), cfg.get('train_dataloader', {})
    names = list(model.get('teachers', {}))
    streams = TeacherStreams(names, model.get('streams') or {}).of_teacher
    missing = {s for found in streams.values() for s in found} - set(loaders)
    if not names or missing:
        raise ValueError(
            f'{args.config} has teachers {names}, for which train_dataloader '
            f'has no stream {sorted(missing)}; every teacher needs a stream '
            'of its name, or one that model.streams names.'
        )
    return {
        name: chain.from_iterable(
            first_batches(
                stream,
                loaders[stream],
                args.num_images,
                args.seed,
                args.device,
            )
            for stream in found
        )
        for name, found in streams.items()
    }


def sized_batches(
    args: argparse.Namespace, cfg: Config, sizes: list[int]
) -> dict[int, Iterator[Batch]]:
    """The same whole images at each size, one at a time.

    Args:
        args: With ``images``, ``num_images``, ``seed`` and ``device``.
        cfg: The config.
        sizes: Pixels of the shorter side.

    Raises:
        ValueError: If there are no images.
    """
    sources: Any = find_sources(cfg.get('train_dataloader', {}), args.images)
    return {
        size: first_batches(
            'images',
            whole_images(sources, size),
            args.num_images,
            args.seed,
            args.device,
        )
        for size in sizes
    }
