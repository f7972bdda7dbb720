"""The images that an analysis looks at, the same ones every time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from kpu_mm.datasets import MultiStreamLoader


class Batch(NamedTuple):
    """Raw images on the device of the models.

    Args:
        images: RGB in [0, 255], (B, 3, H, W).
        mask: True on real pixels, (B, H, W) bool; None where all are.
    """

    images: Tensor
    mask: Tensor | None


def first_batches(
    name: str,
    stream: Mapping[str, Any],
    num_images: int,
    seed: int = 0,
    device: torch.device | None = None,
) -> Iterator[Batch]:
    """The first images of a stream, in the order in which training sees them.

    Args:
        name: The stream's name, on which the order depends.
        stream: Its config, as in ``train_dataloader``.
        num_images: How many images in all.
        seed: Chooses order and random transforms. Defaults to 0.
        device: Where to. Defaults to None, the CPU.
    """
    loader = MultiStreamLoader({name: stream}, seed=seed)
    try:
        for streams in loader:
            batch = streams['streams'][name]
            images = batch['images'][:num_images].to(device)
            mask = batch.get('mask')
            if mask is not None:
                mask = mask[:num_images].to(device)
            yield Batch(images, mask)
            num_images -= len(images)
            if num_images <= 0:
                return
    finally:
        loader.close()


def whole_images(sources: Any, size: int) -> dict[str, Any]:
    """Config of a stream of whole images, one at a time, so without padding.

    Args:
        sources: The sources of a :class:`kpu_mm.UnlabeledImages`.
        size: Pixels of the shorter side; the aspect ratio stays.
    """
    return dict(
        batch_size=1,
        dataset=dict(
            type='kpu_mm.UnlabeledImages',
            sources=sources,
            pipeline=[
                # no limit to the longer side
                dict(
                    type='kpu_mm.DecodeResize',
                    shortest=size,
                    longest=1 << 20,
                    interpolation='bicubic',
                ),
                dict(type='kpu_mm.PackImage'),
            ],
        ),
    )


def find_sources(streams: Mapping[str, Any], folder: str | None = None) -> Any:
    """Where whole images come from.

    Args:
        streams: The ``train_dataloader`` of a run.
        folder: A folder of images instead. Defaults to None, what the first
            stream reads.

    Raises:
        ValueError: If the first stream has labelled images, or there is none.
    """
    if folder is not None:
        return dict(type='kpu_mm.FolderSource', root=folder)
    for stream in streams.values():
        sources = stream.get('dataset', {}).get('sources')
        if sources is not None:
            return sources
        break
    raise ValueError(
        "the config's first stream is no kpu_mm.UnlabeledImages with "
        '`sources`; name a folder of images with --images.'
    )
