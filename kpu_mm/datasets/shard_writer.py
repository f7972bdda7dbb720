"""Turn an image source into webdataset tar shards, resumably."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import tarfile
from pathlib import Path
from typing import Any, NamedTuple

from .errors import CorruptImageError
from .sources import ImageSource
from .sources.index_cache import atomic_file
from .sources.tar_index import (
    build_tar_index,
    index_path,
    load_tar_index,
    save_tar_index,
)
from .transforms import EncodedImage

_SUFFIXES = {
    'JPEG': 'jpg',
    'MPO': 'jpg',
    'PNG': 'png',
    'WEBP': 'webp',
    'BMP': 'bmp',
    'TIFF': 'tif',
}


class ShardPlan(NamedTuple):
    """Which images of a source go into which shard.

    Args:
        source: Where the images come from.
        folder: Where the shards go.
        images_per_shard: Images of the source for each shard; corrupt ones
            among them are left out.
    """

    source: ImageSource
    folder: Path
    images_per_shard: int

    @property
    def shards(self) -> int:
        """Number of shards."""
        return -(-len(self.source) // self.images_per_shard)

    def entries(self, shard: int) -> range:
        """Return the numbers of the images of a shard."""
        first = shard * self.images_per_shard
        last = min(first + self.images_per_shard, len(self.source))
        return range(first, last)

    def tar(self, shard: int) -> Path:
        """Return the path of a shard."""
        return self.folder / f'shard-{shard:06d}.tar'

    def manifest(self, shard: int) -> Path:
        """Return the path of what is recorded about a shard."""
        return self.tar(shard).with_suffix('.json')


def write_shard(plan: ShardPlan, shard: int) -> dict[str, Any]:
    """Write one shard, its index and, as a sign of completion, its manifest.

    The same images give the same bytes. Every image is decoded in full;
    one that fails is left out and named in the manifest.

    Args:
        plan: What goes where.
        shard: Number of the shard.

    Returns:
        The manifest.
    """
    tar = plan.tar(shard)
    skipped = []
    images = 0
    with (
        atomic_file(tar) as file,
        tarfile.open(
            fileobj=file, mode='w', format=tarfile.USTAR_FORMAT
        ) as archive,
    ):
        for entry in plan.entries(shard):
            try:
                _add_image(archive, plan.source, entry)
                images += 1
            except CorruptImageError as error:
                name = plan.source.name(entry)
                skipped.append([name, error.reason])
    save_tar_index(build_tar_index(tar), index_path(tar, None))
    manifest = {
        'images': images,
        'skipped': skipped,
        'size': tar.stat().st_size,
        'sha256': sha256_of(tar),
        'entries': entries_digest(plan, shard),
    }
    with atomic_file(plan.manifest(shard)) as file:
        file.write(json.dumps(manifest, indent=1).encode())
    return manifest


def finished_shard(plan: ShardPlan, shard: int) -> dict[str, Any] | None:
    """Return the manifest of a shard that need not be written again.

    Args:
        plan: What goes where.
        shard: Number of the shard.

    Raises:
        ValueError: If the shard was made from other images.
    """
    manifest, tar = read_manifest(plan.manifest(shard)), plan.tar(shard)
    if manifest is None:
        return None
    if manifest['entries'] != entries_digest(plan, shard):
        raise ValueError(
            f"'{tar}' was made from other images or with another number of "
            'images per shard; choose an empty output folder.'
        )
    if not tar.is_file() or tar.stat().st_size != manifest['size']:
        return None
    try:
        load_tar_index(tar, index_path(tar, None))
    except ValueError:
        return None
    return manifest


def verify_shard(tar: Path) -> str | None:
    """Compare a shard with its manifest and index.

    Args:
        tar: The shard.

    Returns:
        What is wrong, or None.
    """
    manifest = read_manifest(tar.with_suffix('.json'))
    if manifest is None:
        return 'it was not finished'
    if not tar.is_file():
        return 'it is missing'
    if tar.stat().st_size != manifest['size']:
        return f'it has {tar.stat().st_size} bytes, not {manifest["size"]}'
    if sha256_of(tar) != manifest['sha256']:
        return 'its content has changed'
    try:
        index = load_tar_index(tar, index_path(tar, None))
    except ValueError as error:
        return str(error)
    if len(index.offsets) != manifest['images']:
        return 'its index does not match'
    return None


def read_manifest(path: Path) -> dict[str, Any] | None:
    """Read what is recorded about a shard; None if there is nothing."""
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        return None


def entries_digest(plan: ShardPlan, shard: int) -> str:
    """Hash the names of the images planned for a shard."""
    digest = hashlib.sha256()
    for entry in plan.entries(shard):
        digest.update(plan.source.name(entry).encode('utf-8', 'replace'))
        digest.update(b'\n')
    return digest.hexdigest()


def sha256_of(path: Path) -> str:
    """Hash a file."""
    digest = hashlib.sha256()
    with path.open('rb') as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _add_image(
    archive: tarfile.TarFile, source: ImageSource, entry: int
) -> None:
    """Check an image and append its bytes as they are."""
    data = source.read(entry)
    kind = EncodedImage(data).check()
    if kind not in _SUFFIXES:
        raise CorruptImageError('', f'images of format {kind} are not taken')
    stem = os.path.splitext(os.path.basename(source.name(entry)))[0]
    # webdataset ends a key at the first dot. The number keeps keys unique.
    stem = re.sub('[^A-Za-z0-9_-]', '_', stem)[:64]
    # Nothing but the content may change the bytes: no time, no owner.
    member = tarfile.TarInfo(f'{entry:09d}_{stem}.{_SUFFIXES[kind]}')
    member.size = len(data)
    archive.addfile(member, io.BytesIO(data))
