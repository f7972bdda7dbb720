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
import sys
from pathlib import Path

from kpu_mm.datasets import FolderSource, ImageSource, ListSource
from kpu_mm.datasets.shard_run import write_shards
from kpu_mm.datasets.shard_writer import ShardPlan, verify_shard


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('source', nargs='?', help='folder or text file')
    parser.add_argument('shards', type=Path, help='folder of the shards')
    parser.add_argument('--root', help='where paths of a list start')
    parser.add_argument('--images-per-shard', type=int, default=10000)
    parser.add_argument('--workers', type=int, default=1)
    parser.add_argument('--cache-dir', help='folder for the index of images')
    parser.add_argument(
        '--refresh', action='store_true', help='scan the folder again'
    )
    parser.add_argument(
        '--verify',
        action='store_true',
        help='only compare the shards with their checksums',
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
    return FolderSource(
        args.source, cache_dir=args.cache_dir, refresh=args.refresh
    )


def verify(folder: Path) -> int:
    # A shard that is lost shows by its manifest, an unfinished one lacks it.
    found = {p.with_suffix('.tar') for p in folder.glob('shard-*.json')}
    tars = sorted(found | set(folder.glob('shard-*.tar')))
    faults = 0
    for tar in tars:
        fault = verify_shard(tar)
        faults += fault is not None
        print(f'{tar}: {fault or "ok"}', flush=True)
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
        print(error, file=sys.stderr)
        return 1
    print(
        f'{report["images"]} images in {report["shards"]} shards, '
        f'{report["left_out"]} left out'
    )
    return 0


if __name__ == '__main__':
    sys.exit(main())
