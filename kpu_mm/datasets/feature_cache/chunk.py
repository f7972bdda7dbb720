"""One file of a feature cache: some images' features and checksums."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from kpu_mm.structures import Features

_SMALL = ('offsets', 'shapes', 'checksums', 'thumbnails')
_SIDE = 4  # of thumbnails
_SAMPLED = 32  # pixels a side that a thumbnail looks at


class Entry(NamedTuple):
    """What is stored of one image.

    Args:
        features: A batch of one, without masks.
        thumbnail: Of the image that the teacher saw, (3, 4, 4) uint8.
    """

    features: Features
    thumbnail: Tensor


class Stamp(NamedTuple):
    """What a chunk is known by, without reading its features.

    Args:
        size: Of the file, in bytes.
        head: CRC-32 of all but the features, their checksums included.
    """

    size: int
    head: int


class ChunkError(Exception):
    """A chunk is missing, cut short or altered; the message says which."""


def thumbnail(image: Tensor) -> Tensor:
    """Tell images apart, and views of one image, by 16 mean colours.

    Args:
        image: Raw RGB, (3, H, W) uint8.

    Returns:
        (3, 4, 4) uint8.
    """
    steps = [max(1, side // _SAMPLED) for side in image.shape[-2:]]
    pixels = image[:, :: steps[0], :: steps[1]].float()
    means = torch.nn.functional.adaptive_avg_pool2d(pixels, _SIDE)
    return means.round().to(torch.uint8)


def pack(entries: Sequence[Entry | None], dtype: torch.dtype) -> bytes:
    """Write a chunk into memory.

    Args:
        entries: In the order of the images, None for a corrupt one.
        dtype: float16 or bfloat16.

    Raises:
        ValueError: If a value is not finite in this type.
    """
    values, shapes, checksums, thumbnails, ends = [], [], [], [], [0]
    present = [entry for entry in entries if entry is not None]
    parts = len(_parts(present[0])) if present else 0
    has_summary = bool(present) and present[0].features.summary is not None
    for entry in entries:
        tensors = [] if entry is None else _parts(entry)
        flat = torch.cat(
            [torch.empty(0, dtype=dtype)]
            + [t.detach().to('cpu', dtype).flatten() for t in tensors]
        )
        if not flat.isfinite().all():
            raise ValueError(
                f'a teacher gives values that {dtype} cannot hold; use '
                'bfloat16, whose range is that of float32.'
            )
        values.append(flat)
        ends.append(ends[-1] + len(flat))
        sizes = [(*t.shape[1:], 1, 1)[:3] for t in tensors]
        shapes.append(sizes or [(0, 0, 0)] * parts)
        checksums.append(_checksum(flat))
        thumbnails.append(
            torch.zeros(3, _SIDE, _SIDE, dtype=torch.uint8)
            if entry is None
            else entry.thumbnail
        )
    return save(
        dict(
            values=torch.cat(values),
            offsets=torch.tensor(ends),
            shapes=torch.tensor(shapes, dtype=torch.int32),
            checksums=torch.tensor(checksums),
            thumbnails=torch.stack(thumbnails),
        ),
        metadata=dict(summary=str(has_summary)),
    )


class Chunk:
    """A chunk, mapped into memory.

    Args:
        path: The file.
        stamp: What it must be known by; None takes what is there. Defaults
            to None.

    Raises:
        ChunkError: If it is missing, cut short or altered.
    """

    def __init__(self, path: Path, stamp: Stamp | None = None) -> None:
        try:
            with safe_open(path, framework='pt') as file:
                small = {key: file.get_tensor(key) for key in _SMALL}
                self.values: Tensor = file.get_tensor('values')
                self.has_summary = file.metadata()['summary'] == 'True'
        except FileNotFoundError as error:
            raise ChunkError('is missing') from error
        except (SafetensorError, OSError, KeyError, TypeError) as error:
            raise ChunkError(f'is cut short or altered ({error})') from error
        self.stamp = Stamp(path.stat().st_size, _head_checksum(path, small))
        if stamp is not None and self.stamp != stamp:
            raise ChunkError('is altered')
        # Python numbers: looking one up in a tensor takes longer.
        self.offsets: list[int] = small['offsets'].tolist()
        self.shapes: list[Any] = small['shapes'].tolist()
        self.checksums: list[int] = small['checksums'].tolist()
        self.thumbnails = small['thumbnails']

    def __len__(self) -> int:
        return len(self.checksums)

    def read(self, index: int) -> Entry | None:
        """Read one image's features, without copying them.

        Args:
            index: Place of the image in the chunk.

        Returns:
            None for an image that was corrupt.

        Raises:
            ChunkError: If they are altered.
        """
        flat = self.values[self.offsets[index] : self.offsets[index + 1]]
        if _checksum(flat) != self.checksums[index]:
            raise ChunkError(f'is altered (its image {index})')
        if not len(flat):
            return None
        shapes = self.shapes[index]
        parts = list(flat.split([c * h * w for c, h, w in shapes]))
        summary = parts.pop(0)[None] if self.has_summary else None
        maps = tuple(
            part.view(1, *shape)
            for part, shape in zip(parts, shapes[-len(parts) :], strict=True)
        )
        return Entry(Features(summary, maps), self.thumbnails[index])


def _parts(entry: Entry) -> list[Tensor]:
    """Summary, if there is one, and maps."""
    summary, maps, _ = entry.features
    return [*([] if summary is None else [summary]), *maps]


def _checksum(values: Tensor) -> int:
    return zlib.crc32(values.view(torch.uint8).numpy().data)


def _head_checksum(path: Path, small: dict[str, Tensor]) -> int:
    """CRC-32 of safetensors' header and of the small tensors."""
    with path.open('rb') as file:
        length = file.read(8)
        head = zlib.crc32(length + file.read(int.from_bytes(length, 'little')))
    for key in _SMALL:
        head = zlib.crc32(small[key].contiguous().numpy().data, head)
    return head
