"""Which positions of a stream one process takes."""

from __future__ import annotations

from collections.abc import Iterator

from mmengine.dist import get_dist_info
from torch.utils.data import Dataset, Sampler

from ..registry import DATA_SAMPLERS


@DATA_SAMPLERS.register_module()
class PositionSampler(Sampler[int]):
    """Endless positions for one process, resumable at any iteration.

    Item ``j`` of process ``r`` at iteration ``i`` is position
    ``(i * world_size + r) * batch_size + j``: two processes with batches of
    B see what one process with batches of 2B sees.

    Args:
        dataset: A dataset that takes endless positions. One with
            ``set_batch_size`` is told the images of an iteration in all
            processes.
        batch_size: Images of one process in one iteration.
        seed: Handed to ``dataset.set_seed``. Defaults to None, leave the
            dataset as it is.
        rank: Number of this process. Defaults to None, MMEngine's.
        world_size: Number of processes. Defaults to None, MMEngine's.
    """

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int,
        seed: int | None = None,
        rank: int | None = None,
        world_size: int | None = None,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f'`batch_size` must be >= 1, got {batch_size}.')
        if seed is not None:
            dataset.set_seed(seed)  # type: ignore[attr-defined]
        own_rank, own_world_size = get_dist_info()
        self.batch_size = batch_size
        self.rank = own_rank if rank is None else rank
        self.world_size = own_world_size if world_size is None else world_size
        if hasattr(dataset, 'set_batch_size'):
            dataset.set_batch_size(self.batch_size * self.world_size)
        self._dataset = dataset
        self._iteration = 0

    def start(self, iteration: int) -> None:
        """Let the next ``iter`` begin at an iteration."""
        if iteration < 0:
            raise ValueError(f'`iteration` must be >= 0, got {iteration}.')
        self._iteration = iteration

    def __len__(self) -> int:
        """This process's share of the images; the order itself is endless."""
        images = len(self._dataset)  # type: ignore[arg-type]
        return -(-images // self.world_size)

    def __iter__(self) -> Iterator[int]:
        iteration = self._iteration
        while True:
            first = iteration * self.world_size + self.rank
            first *= self.batch_size
            yield from range(first, first + self.batch_size)
            iteration += 1
