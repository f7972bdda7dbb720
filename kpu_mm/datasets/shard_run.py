"""Write all shards of a plan in several processes."""

from __future__ import annotations

import json
import multiprocessing
import os
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection, wait
from typing import Any

from mmengine.logging import print_log

from .shard_writer import ShardPlan, finished_shard, write_shard
from .sources.index_cache import atomic_file

REPORT = 'report.json'


def write_shards(plan: ShardPlan, workers: int = 1) -> dict[str, Any]:
    """Write the shards that are not there yet.

    Finished shards are kept; what an interrupted run left is removed.

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
    manifests = {}
    for shard in range(plan.shards):
        manifest = finished_shard(plan, shard)
        if manifest is not None:
            manifests[shard] = manifest
    kept = len(manifests)
    todo = [shard for shard in range(plan.shards) if shard not in manifests]
    print_log(f'{kept} shards are finished, {len(todo)} to do', 'current')
    started = time.monotonic()
    for number, (shard, manifest) in enumerate(_run(plan, todo, workers), 1):
        manifests[shard] = manifest
        seconds = time.monotonic() - started
        left = seconds / number * (len(todo) - number)
        print_log(
            f'shard {kept + number}/{plan.shards}, '
            f'{manifest["images"]} images, '
            f'{len(manifest["skipped"])} left out, eta {_clock(left)}',
            'current',
        )
    report = _summary(manifests, kept)
    with atomic_file(plan.folder / REPORT) as file:
        file.write(json.dumps(report, indent=1).encode())
    return report


def _summary(manifests: dict[int, dict[str, Any]], kept: int) -> dict:
    """Add up the manifests."""
    ordered = [manifests[shard] for shard in sorted(manifests)]
    skipped = [entry for m in ordered for entry in m['skipped']]
    return {
        'shards': len(ordered),
        'kept': kept,
        'images': sum(m['images'] for m in ordered),
        'left_out': len(skipped),
        'skipped': skipped,
    }


def _clock(seconds: float) -> str:
    """Write a duration as h:mm:ss."""
    minutes, second = divmod(round(seconds), 60)
    return f'{minutes // 60}:{minutes % 60:02d}:{second:02d}'


def _run(
    plan: ShardPlan, todo: list[int], workers: int
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield finished shards as the processes report them."""
    context = multiprocessing.get_context('fork')
    processes = []
    receivers: list[Connection] = []
    for worker in range(min(workers, len(todo))):
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(
            target=_work,
            args=(plan, todo[worker::workers], sender, os.getpid()),
            daemon=True,
        )
        process.start()
        # Only the worker may hold this end, so that its death closes it.
        sender.close()
        processes.append(process)
        receivers.append(receiver)
    while receivers:
        for ready in wait(receivers):
            assert isinstance(ready, Connection)
            try:
                yield ready.recv()
            except EOFError:
                receivers.remove(ready)
    for process in processes:
        process.join()
        if process.exitcode != 0:
            raise RuntimeError(
                'A process that writes shards failed with exit code '
                f'{process.exitcode}; its message is above. Start again to '
                'go on from the finished shards.'
            )


def _work(
    plan: ShardPlan, shards: list[int], sender: Connection, parent: int
) -> None:
    """Write some shards and report each; stop when the parent is gone."""
    for shard in shards:
        if os.getppid() != parent:
            return
        sender.send((shard, write_shard(plan, shard)))
