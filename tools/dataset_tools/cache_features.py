"""Store what the frozen teachers of a config say of their streams' images.

    python tools/dataset_tools/cache_features.py CONFIG OUT --views 4
    torchrun --nproc_per_node 8 tools/dataset_tools/cache_features.py ...

Each teacher gets a folder of its name in OUT. An interrupted run goes on from
the finished chunks; a damaged chunk that was deleted is written again. See
docs/feature_cache.md for how a run uses the result.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kpu_mm.utils.command_line import add_config_arguments, read_config, refuse


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_config_arguments(parser)
    parser.add_argument('out', type=Path, help='folder of the caches')
    parser.add_argument('--teachers', nargs='+', help='default: all')
    parser.add_argument(
        '--views', type=int, help="default: that of the stream's dataset, or 1"
    )
    parser.add_argument(
        '--dtype', choices=['float16', 'bfloat16'], default='float16'
    )
    parser.add_argument(
        '--amp', action='store_true', help='run teachers in bfloat16 autocast'
    )
    parser.add_argument(
        '--batch-size', type=int, default=32, help='images a teacher sees'
    )
    parser.add_argument(
        '--workers', type=int, default=4, help='processes that load images'
    )
    parser.add_argument(
        '--chunk-mb', type=float, default=64, help='size of a file'
    )
    parser.add_argument(
        '--device', help="such as 'cuda:0' (default: a GPU if there is one)"
    )
    parser.add_argument(
        '--estimate', action='store_true', help='print sizes, write nothing'
    )
    parser.add_argument(
        '--force', action='store_true', help='write even if the disk is full'
    )
    parser.add_argument(
        '--verify', action='store_true', help='only read what is there'
    )
    args = parser.parse_args()
    if args.batch_size < 1 or args.workers < 0 or args.chunk_mb <= 0:
        parser.error('--batch-size, --workers or --chunk-mb is too small')
    return args


def chosen(cfg: Any, wanted: Sequence[str] | None) -> list[str]:
    """Names of the teachers whose features are to be stored."""
    teachers = list(cfg.get('model', {}).get('teachers', {}))
    unknown = set(wanted or ()) - set(teachers)
    if unknown or not teachers:
        refuse(f'the config has teachers {teachers}, not {sorted(unknown)}.')
    return [name for name in teachers if not wanted or name in wanted]


def prepare(cfg: Any, name: str, args: argparse.Namespace) -> Any:
    """Plan the cache of one teacher and tell its size."""
    import torch

    from kpu_mm.datasets.feature_cache.estimate import readable
    from kpu_mm.engine.feature_caching import CacheOptions, prepare_cache

    local_rank = os.environ.get('LOCAL_RANK', '0')
    gpu = f'cuda:{local_rank}' if torch.cuda.is_available() else 'cpu'
    options = CacheOptions(
        args.views,
        args.dtype,
        args.amp,
        args.batch_size,
        args.chunk_mb * 1e6,
    )
    device = torch.device(args.device or gpu)
    cache = prepare_cache(cfg, name, args.out / name, device, options)
    print(
        f'{name}: {readable(cache.image_bytes)} an image x '
        f'{len(cache.plan.images)} images x {cache.plan.record["views"]} '
        f'views = {readable(cache.total_bytes)} in {len(cache.plan.chunks)} '
        f'files, of which {len(cache.plan.missing())} are missing',
        flush=True,
    )
    return cache


def check_space(args: argparse.Namespace, needed: float) -> None:
    from kpu_mm.datasets.feature_cache.estimate import (
        free_bytes,
        readable,
    )

    free = free_bytes(args.out)
    words = f'{readable(needed)} are to be written, {readable(free)} are free'
    print(words, flush=True)
    if needed > free and not (args.force or args.estimate):
        refuse(
            f'{words} in {args.out}; choose another disk, fewer --views, or '
            '--force it.'
        )


def verify_all(cfg: Any, names: Sequence[str], args: Any) -> int:
    from kpu_mm.datasets.feature_cache import open_record
    from kpu_mm.datasets.feature_cache.plan import CachePlan
    from kpu_mm.datasets.feature_cache.writer import verify
    from kpu_mm.engine.feature_caching import open_images

    faults = 0
    for name in names:
        record = open_record(args.out / name)
        images = open_images(cfg, name, args.views)
        plan = CachePlan(args.out / name, record, images, args.batch_size)
        for path, fault in verify(plan):
            faults += fault is not None
            print(f'{path}: {fault or "ok"}', flush=True)
    print(f'{faults} files are faulty' + '; delete them' * bool(faults))
    return 1 if faults else 0


def write_all(cfg: Any, names: Sequence[str], args: Any) -> int:
    from kpu_mm.datasets.feature_cache import write_record
    from kpu_mm.datasets.feature_cache.writer import write_features

    caches = [prepare(cfg, name, args) for name in names]
    check_space(args, sum(cache.missing_bytes for cache in caches))
    if args.estimate:
        return 0
    # chunks are shared out, so processes need not talk to each other
    rank = int(os.environ.get('RANK', 0))
    world_size = int(os.environ.get('WORLD_SIZE', 1))
    for plan, extract, _ in caches:
        write_record(plan.folder, plan.record)
        report = write_features(plan, extract, args.workers, rank, world_size)
        for image, reason in report.corrupt:
            print(f'corrupt: {image} ({reason})')
        print(
            f'{plan.folder}: {report.written} files written, {report.kept} '
            f'kept; the cache is {"" if report.finished else "not yet "}'
            'finished',
            flush=True,
        )
    return 0


def main() -> int:
    args = parse_args()
    cfg = read_config(args.config, args.cfg_options)
    names = chosen(cfg, args.teachers)
    try:
        if args.verify:
            return verify_all(cfg, names, args)
        return write_all(cfg, names, args)
    except (OSError, RuntimeError, ValueError) as error:
        refuse(str(error))


if __name__ == '__main__':
    sys.exit(main())
