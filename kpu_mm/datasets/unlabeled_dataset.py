"""Unlabelled images, addressed by their place in an endless stream."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from mmengine.dataset import Compose
from torch.utils.data import Dataset

from ..registry import DATASETS, TRANSFORMS
from .errors import CorruptImageError
from .hashing import stable_hash
from .mix import SourceMix
from .seeded import seeded
from .sources import ImageSource

Skipped = Sequence[tuple[str, str]]


@DATASETS.register_module()
class UnlabeledImages(Dataset):
    """Images of one or several sources, shuffled, without end.

    ``dataset[position]`` is a pure function of the seed and the position,
    random transforms included, so that a stream resumes exactly by resuming
    its position. An image that cannot be read or decoded is replaced by
    another one and listed in ``results['skipped']`` as (name, reason).

    Args:
        sources: One source config or several, for example
            ``dict(type='kpu_mm.FolderSource', root='data/images')``.
        pipeline: Transforms; the first finds the encoded image in
            ``results['bytes']``.
        weights: Share of each source. Defaults to None, the number of its
            images.
        seed: Chooses order and transforms. Defaults to 0; the train loop
            sets it.
        max_retries: So many images in a row may be replaced. Defaults to
            20.

    Raises:
        ValueError: If there is no source, or a source has no images.
    """

    def __init__(
        self,
        sources: dict[str, Any] | Sequence[dict[str, Any]],
        pipeline: Sequence[dict[str, Any] | Callable],
        weights: Sequence[float] | None = None,
        seed: int = 0,
        max_retries: int = 20,
    ) -> None:
        configs = [sources] if isinstance(sources, dict) else list(sources)
        if not configs:
            raise ValueError(
                '`sources` is empty; name at least one image source.'
            )
        self.sources: list[ImageSource] = [
            DATASETS.build(config) for config in configs
        ]
        self._mix = SourceMix(
            [len(source) for source in self.sources], weights
        )
        # Compose of mmengine would build names with its own registry.
        self.pipeline = Compose(
            [
                TRANSFORMS.build(t) if isinstance(t, dict) else t
                for t in pipeline
            ]
        )
        self.seed = seed
        self.max_retries = max_retries

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._mix)

    def set_seed(self, seed: int) -> None:
        """Choose another order and other random transforms."""
        self.seed = seed

    def __getitem__(self, position: int) -> Any:
        """Load the image at a position of the endless stream.

        Args:
            position: Any number from 0.

        Raises:
            RuntimeError: If too many images in a row cannot be used.
        """
        skipped: list[tuple[str, str]] = []
        for attempt in range(self.max_retries + 1):
            place = self._substitute(position, attempt)
            number, index = self._mix.locate(place, self.seed)
            try:
                return self._load(number, index, position, skipped)
            except CorruptImageError as error:
                name = self.sources[number].name(index)
                skipped.append((name, error.reason))
        name, reason = skipped[-1]
        raise RuntimeError(
            f'{len(skipped)} images in a row cannot be used, the last is '
            f"'{name}' ({reason}); check that the data are complete."
        )

    def _substitute(self, position: int, attempt: int) -> int:
        """Return the position to read at an attempt, the 0th its own."""
        if attempt == 0:
            return position
        return stable_hash(self.seed, position, attempt) % (1 << 40)

    def _load(
        self, number: int, index: int, position: int, skipped: Skipped
    ) -> Any:
        """Run the pipeline with generators seeded by the position."""
        data = self.sources[number].read(index)
        results = {'bytes': data, 'skipped': list(skipped)}
        with seeded(stable_hash(self.seed, position)):
            output = self.pipeline(results)
        if output is None:
            raise ValueError(
                'A transform of the pipeline returned None; transforms that '
                'filter images have no place in a stream without labels.'
            )
        return output
