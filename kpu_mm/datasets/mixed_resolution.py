"""Unlabelled images whose size changes from batch to batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch.utils.data import Dataset

from ..registry import DATASETS
from .build_dataset import build_dataset
from .hashing import stable_hash


@DATASETS.register_module()
class MixedResolution(Dataset):
    """A stream of several sizes, one in each iteration.

    Stochastic resolutions of C-RADIOv4 (https://arxiv.org/abs/2601.17237):
    a student that meets every teacher at many sizes cannot tell teachers
    apart by them. The size is a pure function of seed and iteration, the
    same in all processes, so that a stream resumes exactly.

    Args:
        dataset: Config of :class:`UnlabeledImages`; the first transform of
            its pipeline is one that takes ``size``, such as
            ``kpu_mm.DecodeRandomResizedCrop``.
        sizes: What ``size`` may be, each as often as the others.
        batch_size: Images of an iteration in all processes. Defaults to 1;
            the stream's loader sets it.

    Raises:
        ValueError: If there is no size, or the first transform takes none.
    """

    def __init__(
        self,
        dataset: Mapping[str, Any],
        sizes: Sequence[int],
        batch_size: int = 1,
    ) -> None:
        first, *rest = dataset['pipeline']
        if not sizes or not isinstance(first, Mapping) or 'size' not in first:
            raise ValueError(
                f'MixedResolution: sizes={list(sizes)} are for `size` of the '
                f'first transform of the pipeline, which is {first}; give '
                'one size at least and a transform that has it.'
            )
        self.sizes = tuple(sizes)
        self.batch_size = batch_size
        # lists of images are files in memory, which all of these share
        self.views: list[Any] = [
            build_dataset(
                dict(dataset, pipeline=[dict(first, size=size), *rest])
            )
            for size in self.sizes
        ]

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.views[0])

    def set_seed(self, seed: int) -> None:
        """Choose other sizes, another order and other random transforms."""
        for view in self.views:
            view.set_seed(seed)

    def set_batch_size(self, batch_size: int) -> None:
        """Say how many images in a row have one size.

        Args:
            batch_size: Images of an iteration in all processes.
        """
        self.batch_size = batch_size

    def size_at(self, position: int) -> int:
        """Choose the size of the image at a position.

        Args:
            position: Any number from 0.
        """
        return self.sizes[self._choose(position)]

    def __getitem__(self, position: int) -> Any:
        """Load the image at a position of the endless stream.

        Args:
            position: Any number from 0.
        """
        return self.views[self._choose(position)][position]

    def _choose(self, position: int) -> int:
        iteration = position // self.batch_size
        seed = self.views[0].seed
        return stable_hash(seed, 'size', iteration) % len(self.sizes)
