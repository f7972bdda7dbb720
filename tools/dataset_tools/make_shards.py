"""Turn a folder tree or a list of images into webdataset tar shards.

    python tools/dataset_tools/make_shards.py IMAGES SHARDS --workers 8
    python tools/dataset_tools/make_shards.py list.txt SHARDS --root IMAGES
    python tools/dataset_tools/make_shards.py --verify SHARDS

Every image is decoded; corrupt ones are left out and named in report.json.
An interrupted run goes on from the finished shards. Train from the result
with ``dict(type='kpu_mm.TarSource', shards='SHARDS/shard-*.tar')``.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import multiprocessing
import os
import re
import sys
import tarfile
import threading
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

from kpu_mm.datasets import CorruptImageError, EncodedImage, FolderSource, ImageSource, ListSource
from kpu_mm.datasets.image_table import atomic_file, printable
from kpu_mm.utils.command_line import tool_parser

SUFFIXES = {'JPEG': 'jpg', 'MPO': 'jpg', 'PNG': 'png', 'WEBP': 'webp', 'BMP': 'bmp', 'TIFF': 'tif'}


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

    def digest(self, shard: int) -> str:
        """Hash the names of the images planned for a shard."""
        digest = hashlib.sha256()
        for entry in self.entries(shard):
            name = f'{self.source.name(entry)}\n'
            digest.update(name.encode('utf-8', 'replace'))
        return digest.hexdigest()


def write_shards(plan: ShardPlan, workers: int = 1) -> dict[str, Any]:
    """Write the shards that are not there yet, in several processes.

    Args:
        plan: What goes where.
        workers: Number of processes. Defaults to 1.

    Returns:
        What ``report.json`` in the folder then holds: how many shards and
        images there are, how many were kept, and the name and reason of
        each image left out.

    Raises:
        ValueError: If the folder holds shards of another plan.
        RuntimeError: If a process fails.
    """
    plan.folder.mkdir(parents=True, exist_ok=True)
    for leftover in plan.folder.glob('shard-*.tmp'):
        leftover.unlink()
    found = {s: finished_shard(plan, s) for s in range(plan.shards)}
    manifests = {s: m for s, m in found.items() if m is not None}
    kept = len(manifests)
    todo = [shard for shard in range(plan.shards) if shard not in manifests]
    print(f'{kept} shards are finished, {len(todo)} to do', flush=True)
    started, failed = time.monotonic(), None
    context = multiprocessing.get_context('fork')
    with ProcessPoolExecutor(workers, context, end_with_parent, (os.getpid(),)) as pool:
        futures = {pool.submit(write_shard, plan, s): s for s in todo}
        for number, future in enumerate(as_completed(futures), 1):
            failed = failed or future.exception()
            if future.exception():
                continue
            manifest = manifests[futures[future]] = future.result()
            seconds = time.monotonic() - started
            left = seconds / number * (len(todo) - number)
            print(
                f'shard {len(manifests)}/{plan.shards}, {manifest["images"]} images, '
                f'{len(manifest["skipped"])} left out, eta {timedelta(seconds=round(left))}',
                flush=True,
            )
    if failed is not None:
        raise RuntimeError(
            f'A process that writes shards failed ({failed!r}). Start again '
            'to go on from the finished shards.'
        ) from failed
    ordered = [manifests[shard] for shard in range(plan.shards)]
    skipped = [entry for manifest in ordered for entry in manifest['skipped']]
    report = dict(
        shards=len(ordered),
        kept=kept,
        images=sum(manifest['images'] for manifest in ordered),
        left_out=len(skipped),
        skipped=skipped,
    )
    write_json(plan.folder / 'report.json', report)
    return report


def end_with_parent(parent: int) -> None:
    """End this process when its parent is gone.

    A worker of a pool would wait for its next task for ever.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def write_shard(plan: ShardPlan, shard: int) -> dict[str, Any]:
    """Write one shard and, as a sign of completion, its manifest.

    The same images give the same bytes. Every image is decoded in full;
    one that fails is left out and named in the manifest.

    Args:
        plan: What goes where.
        shard: Number of the shard.

    Returns:
        The manifest.
    """
    tar = plan.tar(shard)
    skipped, images = [], 0
    with (
        atomic_file(tar) as file,
        tarfile.open(fileobj=file, mode='w', format=tarfile.USTAR_FORMAT) as archive,
    ):
        for entry in plan.entries(shard):
            try:
                add_image(archive, plan.source, entry)
                images += 1
            except CorruptImageError as error:
                skipped.append([plan.source.name(entry), error.reason])
    manifest = dict(
        images=images,
        skipped=skipped,
        size=tar.stat().st_size,
        sha256=sha256_of(tar),
        entries=plan.digest(shard),
    )
    write_json(plan.manifest(shard), manifest)
    return manifest


def add_image(archive: tarfile.TarFile, source: ImageSource, entry: int) -> None:
    """Check an image and append its bytes as they are."""
    data = source.read(entry)
    kind = EncodedImage(data).check()
    if kind not in SUFFIXES:
        raise CorruptImageError('', f'images of format {kind} are not taken')
    # webdataset ends a key at the first dot. The number keeps keys unique.
    stem = re.sub('[^A-Za-z0-9_-]', '_', Path(source.name(entry)).stem)[:64]
    # Nothing but the content may change the bytes: no time, no owner.
    member = tarfile.TarInfo(f'{entry:09d}_{stem}.{SUFFIXES[kind]}')
    member.size = len(data)
    archive.addfile(member, io.BytesIO(data))


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
    if manifest['entries'] != plan.digest(shard):
        raise ValueError(
            f"'{tar}' was made from other images or with another number of "
            'images per shard; choose an empty output folder.'
        )
    whole = tar.is_file() and tar.stat().st_size == manifest['size']
    return manifest if whole else None


def verify_shard(tar: Path) -> str | None:
    """Compare a shard with its manifest.

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
    return None


def read_manifest(path: Path) -> dict[str, Any] | None:
    return json.loads(path.read_bytes()) if path.is_file() else None


def write_json(path: Path, content: Any) -> None:
    with atomic_file(path) as file:
        file.write(json.dumps(content, indent=1).encode())


def sha256_of(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open('rb') as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def parse_args() -> argparse.Namespace:
    parser = tool_parser(__doc__)
    parser.add_argument('source', nargs='?', help='folder or text file')
    parser.add_argument('shards', type=Path, help='folder of the shards')
    parser.add_argument('--root', help='where paths of a list start')
    parser.add_argument('--images-per-shard', type=int, default=10000)
    parser.add_argument('--workers', type=int, default=1)
    parser.add_argument('--cache-dir', help='folder for the index of images')
    parser.add_argument('--refresh', action='store_true', help='scan the folder again')
    parser.add_argument(
        '--verify', action='store_true', help='only compare the shards with their checksums'
    )
    args = parser.parse_args()
    if not args.verify and args.source is None:
        parser.error('name the images and the folder of the shards')
    if args.images_per_shard < 1 or args.workers < 1:
        parser.error('--images-per-shard and --workers must be at least 1')
    return args


def open_source(args: argparse.Namespace) -> ImageSource:
    if Path(args.source).is_file():
        return ListSource(args.source, args.root, args.cache_dir)
    return FolderSource(args.source, cache_dir=args.cache_dir, refresh=args.refresh)


def verify(folder: Path) -> int:
    # A shard that is lost shows by its manifest, an unfinished one lacks it.
    found = {p.with_suffix('.tar') for p in folder.glob('shard-*.json')}
    tars = sorted(found | set(folder.glob('shard-*.tar')))
    faults = 0
    for tar in tars:
        fault = verify_shard(tar)
        faults += fault is not None
        print(f'{printable(tar)}: {fault or "ok"}', flush=True)
    print(f'{len(tars)} shards, {faults} faulty')
    return 1 if faults or not tars else 0


def main() -> int:
    args = parse_args()
    if args.verify:
        return verify(args.shards)
    try:
        plan = ShardPlan(open_source(args), args.shards, args.images_per_shard)
        report = write_shards(plan, args.workers)
    except (ValueError, RuntimeError) as error:
        print(printable(error), file=sys.stderr)
        return 1
    print(f'{report["images"]} images in {report["shards"]} shards, {report["left_out"]} left out')
    return 0


if __name__ == '__main__':
    sys.exit(main())
