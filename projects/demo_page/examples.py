"""Photographs to try the page on, where scikit-image is installed."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple


class Example(NamedTuple):
    """An image and what may be asked about it.

    Args:
        path: The image.
        texts: For each task what its text box gets.
    """

    path: Path
    texts: dict[str, str]


# names of files, classes, texts for boxes, texts for heat maps
_EXAMPLES = (
    (
        'chelsea.png',
        'cat, dog, tiger, fox, teddy bear',
        'a cat with green eyes.',
        'nose',
    ),
    (
        'coffee.png',
        'cup of coffee, bowl of soup, glass of wine, clock',
        'a cup of coffee on a saucer. a spoon.',
        'spoon',
    ),
    (
        'astronaut.png',
        'astronaut, fire fighter, race driver, pilot',
        'a woman in an orange suit. a flag. a space shuttle.',
        'space shuttle',
    ),
    (
        'rocket.jpg',
        'rocket, lighthouse, church tower, candle',
        'a rocket on a launch pad.',
        'rocket',
    ),
    (
        'motorcycle_left.png',
        'motorcycle, bicycle, car, garage',
        'a motorcycle in a garage. a wheel.',
        'wheel',
    ),
)


def find_examples() -> list[Example]:
    """The examples whose photographs are there; none without scikit-image."""
    package = find_spec('skimage')
    if package is None or package.origin is None:
        return []
    data = Path(package.origin).parent / 'data'
    return [
        Example(data / name, dict(classes=classes, boxes=boxes, heat=heat))
        for name, classes, boxes, heat in _EXAMPLES
        if (data / name).is_file()
    ]
