"""An ordinary dataset as an endless, seeded stream."""

from __future__ import annotations

from typing import Any

from torch.utils.data import Dataset

from .hashing import stable_hash
from .mix import SourceMix
from .seeded import seeded


class EndlessDataset(Dataset):
    """Any map-style dataset, shuffled anew in each epoch, without end.

    ``endless[position]`` is a pure function of the seed and the position,
    random transforms included, so that a run resumes exactly by resuming
    its position. What the dataset itself does at random, such as replacing
    a sample that its pipeline turns down, is seeded too.

    Args:
        dataset: A dataset with ``__len__`` and ``__getitem__``.
        seed: Chooses order and transforms. Defaults to 0; the train loop
            sets it.

    Raises:
        ValueError: If the dataset is empty.
    """

    def __init__(self, dataset: Dataset, seed: int = 0) -> None:
        self.dataset = dataset
        self.seed = seed
        length = len(dataset)  # type: ignore[arg-type]
        if not length:
            raise ValueError(
                f'{type(dataset).__name__} has no samples; check its paths '
                'and its filter_cfg.'
            )
        self._mix = SourceMix([length])

    @property
    def metainfo(self) -> Any:
        """The dataset's own, if it has one."""
        return self.dataset.metainfo  # type: ignore[attr-defined]

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self._mix)

    def set_seed(self, seed: int) -> None:
        """Choose another order and other random transforms."""
        self.seed = seed

    def __getitem__(self, position: int) -> Any:
        """Load the sample at a position of the endless stream.

        Args:
            position: Any number from 0.
        """
        _, index = self._mix.locate(position, self.seed)
        with seeded(stable_hash(self.seed, position)):
            return self.dataset[index]
