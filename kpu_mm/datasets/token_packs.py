"""Batches of an equal number of tokens, from images of native shapes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.dataset import Compose
from torch.utils.data import Dataset

from kpu_mm.registry import DATASETS, TRANSFORMS

from .image_order import stable_hash
from .unlabeled_images import UnlabeledImages

# Packs whose images are sorted by shape together.
_WINDOW = 16


def fit_shape(aspect: float, size: int, patch: int) -> tuple[int, int]:
    """Height and width of an aspect ratio, to whole patches, and an area at most.

    Args:
        aspect: Height over width.
        size: Side of the square of that area.
        patch: Both are multiples of this.
    """
    cells = size // patch
    rows = min(max(1, round(cells * math.sqrt(aspect))), cells**2)
    columns = max(1, min(cells**2 // rows, round(rows / aspect)))
    return rows * patch, columns * patch


@DATASETS.register_module()
class TokenPacks(Dataset):
    """Packs of images, each pack with one shape and about as many tokens.

    Token-balanced batching of SigLino (https://arxiv.org/abs/2512.20157):
    all processes have as much to do, whatever the sizes of their images, and
    a step has few large images or many small ones. SigLino packs images of
    any shapes into one sequence, with an attention mask between them. Here a
    pack has images of like aspect ratio, cut to a common one, so that any
    student and any teacher takes it without padding.

    ``dataset[position]`` is a list of samples, a pure function of the seed
    and the position. A window of packs has each size as often and its images
    sorted by shape; each image comes once before any comes again, but for
    exchanges between two windows. The loader's ``batch_size`` counts packs:
    give 1.

    Shapes cost reads. A worker reads the headers of all images of a window
    once for the packs that it takes of it. A window has 16 packs at most, and
    neighbouring packs go to other processes and their workers. With 16 workers
    in all, or more, each takes one pack of a window, so 16 headers are read for
    each image: 2,048 for a pack of 128 images. Keep the images where small
    reads are cheap, and give the loader more workers than for other streams.

    Args:
        dataset: Config of :class:`UnlabeledImages`; the first transform of
            its pipeline is one that takes ``size`` and ``ratio``, as
            ``kpu_mm.DecodeRandomResizedCrop``.
        sizes: Sides of squares, of whose areas images are.
        tokens: Most tokens of a pack; an image that has more is alone.
        patch: Pixels of a token's side. Defaults to 16.
        max_images: Most images of a pack. Defaults to 16, as in SigLino.

    Attributes:
        packs: Size and number of images of each pack of a window.
        equal_batches: Whether all packs have as many images.

    Raises:
        ValueError: If a size has no whole patches, or the first transform
            takes no size and ratio.
    """

    def __init__(
        self,
        dataset: Mapping[str, Any],
        sizes: Sequence[int],
        tokens: int,
        patch: int = 16,
        max_images: int = 16,
    ) -> None:
        first, *rest = dataset['pipeline']
        if not isinstance(first, Mapping) or 'size' not in first:
            raise ValueError(
                'TokenPacks sets `size` and `ratio` of the first transform of the pipeline, which '
                f'is {first}; give kpu_mm.DecodeRandomResizedCrop with any `size`.'
            )
        if not sizes or any(size < patch or size % patch for size in sizes):
            raise ValueError(
                f'TokenPacks: sizes={list(sizes)} must be multiples of patch={patch}, one at least.'
            )
        if tokens < 1 or max_images < 1:
            raise ValueError(f'TokenPacks: tokens={tokens}, max_images={max_images}: give 1 each.')
        self.images = UnlabeledImages(**{k: v for k, v in dataset.items() if k != 'type'})
        self.patch = patch
        self._first, self._rest = first, [TRANSFORMS.build(t) for t in rest]
        counts = {s: min(max_images, max(1, tokens // (s // patch) ** 2)) for s in sizes}
        self.equal_batches = len(set(counts.values())) == 1
        # More images than there are would repeat some in one window.
        repeats = max(1, _WINDOW // len(sizes))
        repeats = max(1, min(repeats, len(self.images) // sum(counts.values())))
        self.packs = list(counts.items()) * repeats
        self._per_window = sum(count for _, count in self.packs)
        self._order: tuple[tuple[int, int], list[tuple[tuple[int, int], list[int]]]] | None = None

    def __len__(self) -> int:
        """Return the number of packs that have all images."""
        return -(-len(self.images) // self._per_window) * len(self.packs)

    def set_seed(self, seed: int) -> None:
        """Choose another order and other random transforms."""
        self.images.set_seed(seed)

    def __getitem__(self, position: int) -> list[Any]:
        """Load the pack at a position of the endless stream.

        Args:
            position: Any number from 0.
        """
        (height, width), places = self.locate(position)
        aspect = width / height
        size = dict(size=(height, width), ratio=(aspect, aspect))
        pipeline = Compose([TRANSFORMS.build(dict(self._first, **size)), *self._rest])
        return [self.images.load(place, place, pipeline) for place in places]

    def locate(self, position: int) -> tuple[tuple[int, int], list[int]]:
        """Height and width of a pack, and the positions of its images.

        Args:
            position: Any number from 0.
        """
        key = position // len(self.packs), self.images.seed
        # Positions of a worker only grow, so no earlier window comes again.
        if self._order is None or self._order[0] != key:
            self._order = key, self._arrange(*key)
        return self._order[1][position % len(self.packs)]

    def _arrange(self, window: int, seed: int) -> list[tuple[tuple[int, int], list[int]]]:
        """The packs of a window, in their order."""
        start = window * self._per_window
        places = range(start, start + self._per_window)
        aspects = {p: self.images.aspect_at(p) for p in places}
        # Many images have the very same shape; the hash spreads repeated ones.
        waiting = sorted(places, key=lambda p: (aspects[p], stable_hash(seed, 'shape', p)))

        def drawn(purpose: str) -> list[int]:
            """A random order of the packs."""
            numbers = range(len(self.packs))
            return sorted(numbers, key=lambda k: stable_hash(seed, purpose, window, k))

        made = []
        # Every size gets wide and tall images in the long run.
        for size, count in (self.packs[k] for k in drawn('size')):
            taken, waiting = waiting[:count], waiting[count:]
            shape = fit_shape(aspects[taken[count // 2]], size, self.patch)
            made.append((shape, taken))
        # Without this every window would go from wide to tall images.
        return [made[k] for k in drawn('pack')]
