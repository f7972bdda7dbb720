"""Start-up time and memory of a large image index.

Writes a list of 15 million paths, indexes it, and measures a start with the
index in place: seconds, and memory of the main process and of 0, 2 and 4
workers that look up names all over the list. PSS counts a page that n
processes share as 1/n in each, so that its sum is what the machine spends;
the mapped list is page cache that the system may drop. "private" is what
belongs to one process alone.

    python benchmarks/data_index.py [--entries 15000000]
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from kpu_mm.datasets import ListSource, Permutation

MIB = 1 << 20


def write_list(path: Path, entries: int) -> None:
    with path.open('w') as file:
        for start in range(0, entries, 100_000):
            file.writelines(
                f'n{i // 700:08d}/n{i // 700:08d}_{i}.JPEG\n'
                for i in range(start, min(start + 100_000, entries))
            )


def memory() -> dict[str, float]:
    full = psutil.Process().memory_full_info()
    return {
        'rss_mib': round(full.rss / MIB, 1),
        'pss_mib': round(full.pss / MIB, 1),
        'private_mib': round(full.uss / MIB, 1),
    }


def look_up(source: ListSource, seed: int, results, done) -> None:
    """Touch the list as training does, then report the memory."""
    before = memory()['private_mib']
    order = Permutation(len(source), seed)
    for i in range(200_000):
        source.name(order[i])
    # All measure while all are alive, else shared pages count fully.
    done.wait()
    after = memory()
    done.wait()
    results.put(after | {'grown_mib': round(after['private_mib'] - before, 1)})


def start(listing: Path, cache: Path) -> tuple[ListSource, float]:
    started = time.perf_counter()
    source = ListSource(str(listing), root='', cache_dir=str(cache))
    source.name(random.randrange(len(source)))
    return source, time.perf_counter() - started


def measure_workers(source: ListSource, workers: int) -> dict:
    context = multiprocessing.get_context('fork')
    results = context.SimpleQueue()
    done = context.Barrier(workers + 1)
    processes = [
        context.Process(target=look_up, args=(source, i, results, done)) for i in range(workers)
    ]
    for process in processes:
        process.start()
    done.wait()
    main = memory()
    done.wait()
    each = [results.get() for _ in processes]
    for process in processes:
        process.join()
    return {
        'main': main,
        'workers': each,
        'sum_private_mib': round(main['private_mib'] + sum(e['private_mib'] for e in each), 1),
    }


def measure_start(listing: Path, cache: Path) -> dict:
    before = memory()
    source, seconds = start(listing, cache)
    order = Permutation(len(source), 1)
    started = time.perf_counter()
    for i in range(100_000):
        source.name(order[i])
    look_up_us = (time.perf_counter() - started) * 10
    return {
        'entries': len(source),
        'start_seconds': round(seconds, 4),
        'look_up_microseconds': round(look_up_us, 2),
        'main_before': before,
        'by_workers': {n: measure_workers(source, n) for n in (0, 2, 4)},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--entries', type=int, default=15_000_000)
    parser.add_argument('--inside', type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.inside is not None:
        listing = args.inside / 'list.txt'
        print(json.dumps(measure_start(listing, args.inside), indent=1))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_list(folder / 'list.txt', args.entries)
        _, seconds = start(folder / 'list.txt', folder)
        print(f'first start, builds the index: {seconds:.2f} s', flush=True)
        # A fresh process, as the next training run is.
        subprocess.run([sys.executable, __file__, '--inside', name], check=True)


if __name__ == '__main__':
    main()
