"""What a rehearsal has counted, and what follows from it for real GPUs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from rich.console import Console
from rich.table import Table

from .fake_gpu import Kernel

GIB, GB = 2**30, 1e9


class GPU(NamedTuple):
    """What a data sheet says: memory in GiB, GB/s, dense TFLOP/s by precision."""

    name: str
    memory: float
    bandwidth: float
    half: float
    tf32: float
    single: float


GPUS = {
    'h200': GPU('H200', 141, 4800, 989, 495, 67),
    'h100': GPU('H100', 80, 3350, 989, 495, 67),
    'a100': GPU('A100', 80, 2039, 312, 156, 19.5),
    'a100-40gb': GPU('A100 40 GB', 40, 1555, 312, 156, 19.5),
    'l40s': GPU('L40S', 48, 864, 362, 183, 91.6),
    'rtx4090': GPU('RTX 4090', 24, 1008, 165, 82.6, 82.6),
}
# Shares of the data sheet's numbers that kernels reach as a rule.
REACHED_FLOPS, REACHED_BANDWIDTH = 0.6, 0.8
# Of the host for each kernel, and of the GPU for the shortest one, in seconds.
LAUNCH, SHORTEST = 7e-6, 2e-6
# CUDA's own memory, and what the allocator loses between its blocks.
CONTEXT, USABLE = 1 * GIB, 0.94
# What does not grow with the batch.
FIXED = ('weights', 'teachers', 'optimizer', 'buckets of DDP')


class Report(NamedTuple):
    """What a rehearsal has counted in one step.

    Args:
        kernels: The operations of the GPU.
        waits: How often the host waited for the GPU, by (what, place).
        mistakes: Operations on tensors of two devices, likewise.
        memory: Bytes by part where they are most.
        batches: Batch size of each stream.
        iterations: Of the whole run.
        trained: Trained parameters of the student and of the rest.
    """

    kernels: Sequence[Kernel]
    waits: dict[tuple[str, str], int]
    mistakes: dict[tuple[str, str], int]
    memory: dict[str, int]
    batches: dict[str, int]
    iterations: int
    trained: dict[str, int]

    @property
    def flops(self) -> int:
        """Of the step."""
        return sum(k.flops for k in self.kernels)

    @property
    def traffic(self) -> int:
        """Bytes read and written in the step."""
        return sum(k.bytes for k in self.kernels)

    @property
    def peak(self) -> int:
        """Bytes in use where they are most."""
        return sum(self.memory.values())

    def seconds(self, gpu: GPU) -> float:
        """Estimate the time of a step: that of the GPU or that of the host."""
        busy = 0.0
        for k in self.kernels:
            arithmetic = k.flops / (REACHED_FLOPS * 1e12 * _rate(gpu, k))
            transfer = k.bytes / (REACHED_BANDWIDTH * 1e9 * gpu.bandwidth)
            busy += max(arithmetic, transfer, SHORTEST)
        return max(busy, LAUNCH * len(self.kernels))

    def share_that_fits(self, gpu: GPU) -> float:
        """How many times the config's batch fits into a GPU."""
        fixed = sum(self.memory.get(part, 0) for part in FIXED)
        return (gpu.memory * GIB * USABLE - CONTEXT - fixed) / (self.peak - fixed)


def _rate(gpu: GPU, kernel: Kernel) -> float:
    if kernel.dtype in (torch.bfloat16, torch.float16):
        return gpu.half
    backends: Any = torch.backends
    convolution = kernel.name.startswith('convolution')
    tf32 = backends.cudnn.allow_tf32 if convolution else backends.cuda.matmul.allow_tf32
    return gpu.tf32 if tf32 else gpu.single


def show(report: Report, gpu: GPU, gpus: int) -> None:
    """Print all tables."""
    console = Console(width=100)
    streams = ', '.join(f'{count} {name}' for name, count in report.batches.items())
    trained = ', '.join(f'{n / 1e6:.1f} M of the {part}' for part, n in report.trained.items())
    console.print(f'Trained parameters: {trained}.', highlight=False)
    console.print(f'One step of each GPU: {streams}.\n', highlight=False)
    console.print(_parts_table(report))
    console.print(_operators_table(report))
    for title, found in (
        ('Operations on tensors of two devices', report.mistakes),
        ('Places where the host waits for the GPU', report.waits),
    ):
        print(f'{title}: {len(found) or "none"}')
        for (what, place), count in found.items():
            print(f'  {count} x {what}: {place}')
    print()
    console.print(_gpus_table(report, gpus))
    share = report.share_that_fits(gpu)
    most = ', '.join(f'{int(n * share)} {name}' for name, n in report.batches.items())
    verdict = 'fits' if share >= 1 else 'DOES NOT FIT'
    print(f'On one {gpu.name} the batch {verdict}; up to about {most} would.')
    print(
        'Seconds and hours are estimates from the numbers of data sheets; loading, evaluation and '
        'the exchange of gradients are not in them.'
    )


def _parts_table(report: Report) -> Table:
    table = _table('By part', 'part', 'TFLOP', 'backward', 'GB moved', 'kernels', 'GiB at the peak')
    columns: dict[str, list[float]] = {}
    for k in report.kernels:
        row = columns.setdefault(k.part, [0.0] * 5)
        row[k.backward] += k.flops / 1e12
        row[2] += k.bytes / GB
        row[3] += 1
    for part, size in report.memory.items():
        columns.setdefault(part, [0.0] * 5)[4] = size / GIB
    total = [sum(column) for column in zip(*columns.values(), strict=True)]
    for part, row in (*sorted(columns.items(), key=lambda item: -item[1][2]), ('all', total)):
        numbers = (f'{x:,.0f}' if i == 3 else f'{x:.2f}' for i, x in enumerate(row))
        table.add_row(part, *numbers, style='bold' if part == 'all' else None)
    return table


def _operators_table(report: Report, rows: int = 12) -> Table:
    table = _table('By operator', 'operator', 'GB moved', 'kernels')
    moved: Counter[str] = Counter()
    for k in report.kernels:
        moved[k.name] += k.bytes
    calls = Counter(k.name for k in report.kernels)
    for name, size in moved.most_common(rows):
        table.add_row(name, f'{size / GB:.2f}', f'{calls[name]:,}')
    return table


def _gpus_table(report: Report, gpus: int) -> Table:
    hours = f'hours of {report.iterations:,} steps'
    table = _table(
        'Estimates', 'GPU', 's a step', hours, f'hours of {gpus} GPUs', 'batch that fits'
    )
    for gpu in GPUS.values():
        seconds = report.seconds(gpu)
        total = seconds * report.iterations / 3600
        share = f'{report.share_that_fits(gpu):.2f} x'
        table.add_row(gpu.name, f'{seconds:.3f}', f'{total:.1f}', f'{total * gpus:.1f}', share)
    return table


def _table(title: str, first: str, *others: str) -> Table:
    table = Table(title=title, title_justify='left')
    table.add_column(first)
    for name in others:
        table.add_column(name, justify='right')
    return table
