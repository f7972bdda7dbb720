"""From a tool's arguments to models and images."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

from mmengine.config import Config

from kpu_mm.models.distillers import KPUDistiller

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
    """The first images of each teacher's own stream, as training sees them.

    Args:
        args: With ``config``, ``num_images``, ``seed`` and ``device``.
        cfg: The config.

    Raises:
        ValueError: If a teacher has no stream.
    """
    names = list(cfg.get('model', {}).get('teachers', {}))
    streams = cfg.get('train_dataloader', {})
    if not names or set(names) - set(streams):
        raise ValueError(
            f'{args.config} has teachers {names} and streams '
            f'{list(streams)}; every teacher needs a stream of its name.'
        )
    return {
        name: first_batches(
            name, streams[name], args.num_images, args.seed, args.device
        )
        for name in names
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
