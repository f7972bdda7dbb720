"""The images that an analysis looks at, the same ones every time."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import torch
from mmengine.config import Config
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Subset
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from kpu_mm.datasets import LoadImageFromFile, MultiStreamLoader
from kpu_mm.models.teacher_streams import TeacherStreams


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
    """Load the first images of a stream, in the order of training.

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
        # Streams are endless: their workers would go on reading.
        loader.close()


def teacher_batches(args: argparse.Namespace, cfg: Config) -> dict[str, Iterator[Batch]]:
    """Load the first images of each teacher's streams, as training does.

    Args:
        args: With ``config``, ``num_images``, ``seed`` and ``device``.
        cfg: The config.

    Raises:
        ValueError: If a teacher has no stream.
    """
    model, loaders = cfg.get('model', {}), cfg.get('train_dataloader', {})
    names = list(model.get('teachers', {}))
    streams = TeacherStreams(names, model.get('streams') or {})
    missing = set(streams.of_stream) - set(loaders)
    if not names or missing:
        raise ValueError(
            f'{args.config} has teachers {names}, for which train_dataloader '
            f'has no stream {sorted(missing)}; every teacher needs a stream '
            'of its name, or one that model.streams names.'
        )
    return {
        name: chain.from_iterable(
            first_batches(stream, loaders[stream], args.num_images, args.seed, args.device)
            for stream in found
        )
        for name, found in streams.of_teacher.items()
    }


def without_augmentation(cfg: Config, folder: str) -> None:
    """Let each stream read a folder, whole images or their central squares.

    Args:
        cfg: The config, which is changed: streams of random crops take the
            largest central square at the crop's size, all others keep the
            first transform, and no other transform is left.
        folder: Folder of images.

    Raises:
        ValueError: If a stream is no ``kpu_mm.UnlabeledImages``.
    """
    for name, stream in cfg.get('train_dataloader', {}).items():
        dataset = stream.dataset
        if dataset.get('type') != 'kpu_mm.UnlabeledImages':
            raise ValueError(
                f"stream '{name}' is no kpu_mm.UnlabeledImages, but {dataset.get('type')}, so it "
                'cannot read a folder of images; leave out --images.'
            )
        first = dataset.pipeline[0]
        if first.type == 'kpu_mm.DecodeRandomResizedCrop':
            # A square of the whole area fits into no other image than a square
            # one; then the largest central one is taken.
            first.update(scale=(1.0, 1.0), ratio=(1.0, 1.0))
        dataset.update(
            sources=dict(type='kpu_mm.FolderSource', root=folder),
            weights=None,
            pipeline=[first, dict(type='kpu_mm.PackImage')],
        )


def sized_batches(
    args: argparse.Namespace, cfg: Config, sizes: list[int]
) -> dict[int, Iterator[Batch]]:
    """Load the same whole images at each size, one at a time.

    Args:
        args: With ``images``, ``num_images``, ``seed`` and ``device``.
        cfg: The config.
        sizes: Pixels of the shorter side; the aspect ratio stays.

    Raises:
        ValueError: If no folder is given and the config's first stream has
            labelled images, or there is none.
    """
    sources: Any = dict(type='kpu_mm.FolderSource', root=args.images)
    if args.images is None:
        first: Any = next(iter(cfg.get('train_dataloader', {}).values()), {})
        sources = first.get('dataset', {}).get('sources')
    if sources is None:
        raise ValueError(
            "the config's first stream is no kpu_mm.UnlabeledImages with "
            '`sources`; name a folder of images with --images.'
        )

    def stream(size: int) -> dict[str, Any]:
        resize = dict(
            type='kpu_mm.DecodeResize',
            shortest=size,
            longest=1 << 20,  # no limit to the longer side
            interpolation='bicubic',
        )
        dataset = dict(
            type='kpu_mm.UnlabeledImages',
            sources=sources,
            pipeline=[resize, dict(type='kpu_mm.PackImage')],
        )
        # One image a batch needs no padding.
        return dict(batch_size=1, dataset=dataset)

    return {
        size: first_batches('images', stream(size), args.num_images, args.seed, args.device)
        for size in sizes
    }


def _read_rgb(path: str) -> Image.Image:
    # BGR -> RGB
    return Image.fromarray(LoadImageFromFile()(dict(img_path=path))['img'][..., ::-1])


class _ClassFolders(ImageFolder):
    """torchvision's ImageFolder; hidden folders are no classes."""

    def find_classes(self, directory: Any) -> tuple[list[str], dict[str, int]]:
        names = [name for name in super().find_classes(directory)[0] if not name.startswith('.')]
        return names, {name: i for i, name in enumerate(names)}


def labelled_images(
    folder: str | Path, size: int, limit: int, num_workers: int = 0
) -> tuple[DataLoader, list[str]]:
    """Load images of a folder for each class, as raw RGB squares.

    Args:
        folder: Holds a folder of images for each class.
        size: Side of the square.
        limit: Take at most so many images, evenly over the folder.
        num_workers: Processes that load. Defaults to 0, this one.

    Returns:
        Batches of images (B, 3, size, size) uint8 and labels (B,); names of
        the classes.

    Raises:
        FileNotFoundError: If there is no such folder, or a class has no
            image.
    """
    if not Path(folder).is_dir():
        raise FileNotFoundError(f"there is no folder '{folder}'.")
    # The centre of an image of 256 pixels for 224, as in the configs for
    # ImageNet.
    bicubic = v2.InterpolationMode.BICUBIC
    steps = [v2.Resize(round(size / 0.875), bicubic), v2.CenterCrop(size)]
    images = _ClassFolders(str(folder), v2.Compose([*steps, v2.PILToTensor()]), loader=_read_rgb)
    # Evenly, as the folder is sorted by class.
    count = min(limit, len(images))
    chosen = [i * len(images) // count for i in range(count)]
    loader: DataLoader = DataLoader(Subset(images, chosen), batch_size=32, num_workers=num_workers)
    return loader, images.classes
