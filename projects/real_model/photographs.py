"""The photographs of the experiment: three parts of a folder, and labels."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import torch
from timm.data import ImageNetInfo
from torch import Tensor

from kpu_mm.analysis.batches import first_batches, labelled_images
from kpu_mm.datasets.image_sources import IMAGE_EXTENSIONS, normalised_extensions

PARTS = ('train', 'validation', 'test')
# Of ten files in the order of their names one is for validation and one for
# the test. Decisions are taken on the former alone.
_EVERY = 10
_BATCH = 50


class Photographs(NamedTuple):
    """A batch.

    Args:
        images: Raw RGB, (B, 3, size, size) uint8.
        labels: Classes of ImageNet-1k, (B,) int64; None if they are not known.
    """

    images: Tensor
    labels: Tensor | None = None


def split_photographs(folder: Path, out: Path) -> dict[str, int]:
    """List the photographs of each part, in OUT/train.txt and so on.

    Args:
        folder: Images in any layout.
        out: Folder of the lists.

    Returns:
        How many each part has.

    Raises:
        ValueError: If there are fewer than ten, or OUT has lists of others.
    """
    found = folder.absolute().rglob('*')
    suffixes = normalised_extensions(IMAGE_EXTENSIONS)
    paths = sorted(str(path) for path in found if path.suffix.lower() in suffixes)
    if len(paths) < _EVERY:
        raise ValueError(
            f"'{folder}' has {len(paths)} images; the experiment needs {_EVERY} at least, and some "
            'thousands to show anything.'
        )
    held_out = dict(test=paths[::_EVERY], validation=paths[1::_EVERY])
    kept = set(chain.from_iterable(held_out.values()))
    parts = dict(held_out, train=[path for path in paths if path not in kept])
    out.mkdir(parents=True, exist_ok=True)
    for part, names in parts.items():
        # in the file system's encoding, which ListSource reads
        content, listing = os.fsencode('\n'.join(names) + '\n'), out / f'{part}.txt'
        if listing.exists() and listing.read_bytes() != content:
            raise ValueError(
                f"'{listing}' is of other photographs, on which the run in this folder was "
                'trained; choose another --work-dir.'
            )
        listing.write_bytes(content)
    return {part: len(parts[part]) for part in PARTS}


def squares(listing: Path, size: int, limit: int) -> Iterator[Photographs]:
    """The largest central square of each listed photograph.

    Args:
        listing: Text file with a path a line.
        size: Side to which a square is resized.
        limit: At most so many photographs, drawn with seed 0.
    """
    source = dict(type='kpu_mm.ListSource', list_file=str(listing))
    # A square of the whole area fits into no other image than a square one;
    # then the largest central one is taken.
    crop = dict(
        type='kpu_mm.DecodeRandomResizedCrop', size=size, scale=(1.0, 1.0), ratio=(1.0, 1.0)
    )
    dataset = dict(
        type='kpu_mm.UnlabeledImages',
        sources=source,
        pipeline=[crop, dict(type='kpu_mm.PackImage')],
    )
    count = min(limit, len(listing.read_bytes().splitlines()))
    for batch in first_batches('photographs', dict(batch_size=_BATCH, dataset=dataset), count):
        yield Photographs(batch.images)


def imagenet_photographs(folder: Path, size: int, limit: int) -> Iterator[Photographs]:
    """Photographs in ImageNet's layout, as timm evaluates its models on them.

    Args:
        folder: Holds a folder of images for each synset, such as n01440764.
        size: Side of the centre crop, of images whose short side is 1 / 0.875
            of it.
        limit: Take at most so many, evenly over the classes.

    Raises:
        ValueError: If a folder's name is no synset of ImageNet-1k.
    """
    loader, names = labelled_images(folder, size, limit)
    known = {name: i for i, name in enumerate(ImageNetInfo('imagenet-1k').label_names())}
    if unknown := [name for name in names if name not in known]:
        raise ValueError(
            f"'{folder}' has a folder {unknown[0]!r}, which is no synset of ImageNet-1k; name a "
            'folder such as imagenet/val with a folder for each synset.'
        )
    # a folder's place among those that are there -> its place among all 1000
    classes = torch.tensor([known[name] for name in names])
    return (Photographs(images, classes[folders]) for images, folders in loader)
