"""Lists of class names, and the texts that are none."""

from __future__ import annotations

import re
from collections.abc import Sequence

import open_clip

# words that name nothing, whatever stands around them
_STOP_WORDS = re.compile(
    'an?|the|this|that|these|those|its?|he|she|they|them|we|you|i|and|or|but|'
    'nor|not?|of|in|on|at|by|for|from|to|with|without|into|onto|over|under|'
    'as|is|are|was|were|be|been|there|here|some|any|all'
)


def find_classes(classes: str | Sequence[str]) -> tuple[str, ...]:
    """The names behind a list or the name of a data set.

    Args:
        classes: Names; or 'imagenet' for open_clip's names of ImageNet's
            classes; or a data set of MMSegmentation, such as 'ade20k'.

    Returns:
        The names without surrounding white space.

    Raises:
        ValueError: If there is no such data set, no name, or a name that
            says nothing.
    """
    if isinstance(classes, str):
        classes = _of_data_set(classes)
    if not classes:
        raise ValueError('the class list is empty; name at least one class.')
    for name in classes:
        check_text(name)
    return tuple(name.strip() for name in classes)


def check_text(text: str) -> None:
    """Refuse a text in which nothing is named.

    Args:
        text: A class name or a phrase.

    Raises:
        ValueError: If it has no word, or stop words only.
    """
    words = re.findall(r'\w+', text.lower()) if isinstance(text, str) else []
    if all(map(_STOP_WORDS.fullmatch, words)):
        raise ValueError(
            f'{text!r} names nothing: write at least one word besides '
            'articles, prepositions and punctuation.'
        )


def _of_data_set(name: str) -> Sequence[str]:
    if name == 'imagenet':
        names: Sequence[str] = open_clip.IMAGENET_CLASSNAMES
        return names
    try:
        from mmseg.utils import get_classes

        return get_classes(name)
    except (ImportError, ValueError) as error:
        raise ValueError(
            f"there is no class list '{name}': pass a list of names, "
            "'imagenet', or (with MMSegmentation installed) one of its data "
            "sets such as 'ade20k'."
        ) from error
