"""Run a function of a test in two processes that belong together."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import multiprocessing


def run_in_two(function: Callable[[int], Any], folder: Path) -> list[Any]:
    """Results of ``function(rank)`` of two gloo processes.

    The processes are forks, so the function may be a closure; what it
    returns must be something that ``torch.save`` writes.
    """
    if torch.cuda.is_available():
        pytest.skip("a fork cannot use autograd's threads for GPUs")

    def work(rank: int) -> None:
        torch.set_num_threads(1)
        store = f'file://{folder / "store"}'
        dist.init_process_group('gloo', store, rank=rank, world_size=2)
        torch.save(function(rank), folder / f'{rank}.pt')
        dist.barrier()
        dist.destroy_process_group()

    multiprocessing.start_processes(work, nprocs=2, start_method='fork')
    return [torch.load(folder / f'{rank}.pt') for rank in range(2)]
