"""Unlabelled images, addressed by their place in an endless stream."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mmengine.dataset import Compose
from torch.utils.data import Dataset

from ..registry import DATASETS, TRANSFORMS
from .errors import CorruptImageError
from .feature_cache import FeatureCache, describe_sources, plain
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

    With ``views`` random transforms depend on the image and the number of
    its view alone, which rises with each epoch and starts again after the
    last: the same few views of an image come again and again, whatever the
    seed, so that what a teacher says of them can be stored.

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
        views: How many views of an image there are. Defaults to None, as
            many as ``features`` hold; without these, new random transforms
            whenever an image comes.
        features: For teachers of this stream, the feature cache to read;
            samples then have ``features`` by teacher. Defaults to None.

    Raises:
        ValueError: If there is no source, a source has no images, ``views``
            is below one, or a cache does not fit.
    """

    def __init__(
        self,
        sources: dict[str, Any] | Sequence[dict[str, Any]],
        pipeline: Sequence[dict[str, Any] | Callable],
        weights: Sequence[float] | None = None,
        seed: int = 0,
        max_retries: int = 20,
        views: int | None = None,
        features: Mapping[str, str] | None = None,
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
        self._transforms = pipeline
        # Compose of mmengine would build names with its own registry.
        self.pipeline = Compose(
            [
                TRANSFORMS.build(t) if isinstance(t, dict) else t
                for t in pipeline
            ]
        )
        self.seed = seed
        self.max_retries = max_retries
        self.features = {
            name: FeatureCache(folder)
            for name, folder in (features or {}).items()
        }
        self.views = self._check_views(views)

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
                if self.views is not None:
                    view = self._mix.epoch(place) % self.views
                    image = self._mix.join(number, index)
                    return self._with_features(image, view, skipped)
                return self._load(
                    number, index, (self.seed, position), skipped
                )
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

    def view(self, image: int, view: int, skipped: Skipped = ()) -> Any:
        """Load one view of an image.

        Args:
            image: Its number, counted through all sources.
            view: From 0.
            skipped: Images that it replaces. Defaults to ().

        Raises:
            CorruptImageError: If it cannot be read or decoded.
        """
        number, index = self._mix.split(image)
        return self._load(number, index, ('view', image, view), skipped)

    def name(self, image: int) -> str:
        """Return what a person needs to find an image.

        Args:
            image: Its number, counted through all sources.
        """
        number, index = self._mix.split(image)
        return self.sources[number].name(index)

    def describe(self) -> dict[str, Any]:
        """What views depend on, as feature caches record it.

        Raises:
            ValueError: If the pipeline is not written as configs.
        """
        return dict(
            pipeline=plain(self._transforms, 'pipeline'),
            sources=describe_sources(self.sources),
        )

    def _check_views(self, views: int | None) -> int | None:
        """Compare with the caches; return how many views there are."""
        if self.features:
            described = self.describe()
            for cache in self.features.values():
                cache.check(views, **described)
            views = views or min(c.views for c in self.features.values())
        if views is not None and views < 1:
            raise ValueError(f'`views` must be >= 1 or None, got {views}.')
        return views

    def _with_features(self, image: int, view: int, skipped: Skipped) -> Any:
        """Load a view and what is stored of it."""
        sample = self.view(image, view, skipped)
        if self.features:
            sample['features'] = {
                name: cache.read(image, view, sample['image'])
                for name, cache in self.features.items()
            }
        return sample

    def _load(
        self, number: int, index: int, key: tuple[Any, ...], skipped: Skipped
    ) -> Any:
        """Run the pipeline with generators seeded by a key."""
        data = self.sources[number].read(index)
        results = {'bytes': data, 'skipped': list(skipped)}
        with seeded(stable_hash(*key)):
            output = self.pipeline(results)
        if output is None:
            raise ValueError(
                'A transform of the pipeline returned None; transforms that '
                'filter images have no place in a stream without labels.'
            )
        return output
