"""Features on their way from a cache to the model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from typing_extensions import Self

from kpu_mm.structures import Features, pad_features


class StoredFeatures(NamedTuple):
    """What a cache says of one image, or of a batch.

    Args:
        cache: Id of the cache.
        features: As :class:`Features`, in the stored type; those of one
            image are a batch of one.
    """

    cache: str
    features: Features

    def first(self, count: int) -> Self:
        """Keep the first images of a batch.

        Args:
            count: How many.
        """
        summary, maps, masks = self.features
        features = Features(
            None if summary is None else summary[:count],
            tuple(m[:count] for m in maps),
            None if masks is None else tuple(m[:count] for m in masks),
        )
        return self._replace(features=features)


def stack_stored(
    samples: Sequence[StoredFeatures], padded: bool
) -> StoredFeatures:
    """Make a batch.

    Args:
        samples: One for each image.
        padded: Whether the images were padded, so that maps need masks.
    """
    features = [sample.features for sample in samples]
    return StoredFeatures(samples[0].cache, pad_features(features, padded))
