"""Images of like shape side by side, as a pure function of seed and position."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .encoded_image import CorruptImageError, EncodedImage
from .image_order import stable_hash

# Images are chosen within so many groups. For COCO's sizes and groups of four,
# padding is 28 % without, 10 % with 4, 5.6 % with 8, 3.4 % with 16 and 2 % with
# 32 of them. Each worker reads the header of every image of a window.
_GROUPS = 16


class AspectGroups:
    """Exchanges positions of a window so that groups have like aspect ratios.

    The images of a window are sorted by aspect ratio and cut into groups,
    which come in random order. A window has the same images as before, so
    that each still comes once before any comes again, but for exchanges
    within a window. Batches then have little padding.

    Args:
        size: Images of a group. Group k is at positions k * size to
            (k + 1) * size - 1.
        length: Images of all sources.
        aspect_at: Height over width of the image at a position of the order
            without groups.

    Raises:
        ValueError: If ``size`` is below one.
    """

    def __init__(self, size: int, length: int, aspect_at: Callable[[int], float]) -> None:
        if size < 1:
            raise ValueError(f'group_size={size}: a group has one image at least.')
        self._size = size
        # A window of more images than there are would repeat some, and images
        # of one shape land in one group.
        self._window = size * max(1, min(_GROUPS, length // size))
        self._aspect_at = aspect_at
        self._order: tuple[tuple[int, int], list[int]] | None = None

    def locate(self, position: int, seed: int) -> int:
        """Find whose place in the order without groups a position takes.

        Args:
            position: Any number from 0.
            seed: Chooses the order.
        """
        if self._size == 1:
            return position
        window, place = divmod(position, self._window)
        # Neighbouring positions share a window, so one order is enough.
        if self._order is None or self._order[0] != (window, seed):
            self._order = (window, seed), self._arrange(window, seed)
        return self._order[1][place]

    def _arrange(self, window: int, seed: int) -> list[int]:
        start = window * self._window
        positions = list(range(start, start + self._window))
        # Many images have the very same shape; the hash spreads repeated ones.
        key = {p: (self._aspect_at(p), stable_hash(seed, 'shape', p)) for p in positions}
        positions.sort(key=key.__getitem__)
        groups = [positions[i : i + self._size] for i in range(0, self._window, self._size)]
        # Without this every window would go from wide to tall images.
        groups.sort(key=lambda group: stable_hash(seed, 'group', group[0]))
        return [position for group in groups for position in group]


def aspect_ratio(source: Any, index: int) -> float:
    """Height over width of an upright image, by its header.

    Args:
        source: An :class:`ImageSource`. One with a method ``head`` gives the
            first bytes of an image; of others the whole image is read.
        index: Number of the image.

    Returns:
        The ratio; 1 for an image that cannot be read, which another one will
        replace.
    """
    # The header of some formats is at their end, or needs the whole file.
    for read in (getattr(source, 'head', source.read), source.read):
        try:
            height, width = EncodedImage(read(index)).size
            return height / max(width, 1)
        except CorruptImageError:
            continue
    return 1.0
