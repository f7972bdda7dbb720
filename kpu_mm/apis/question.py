"""What a detector that reads text is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def set_text(inputs: Any, text: str | tuple[str, ...]) -> None:
    """Tell a detector what to look for in a batch.

    Args:
        inputs: The batch, which is changed.
        text: Names or a free text.
    """
    for sample in inputs['data_samples']:
        sample.set_metainfo(
            dict(text=text, custom_entities=not isinstance(text, str))
        )


def read_question(
    classes: Sequence[str] | None,
    texts: str | None,
    known: Sequence[str] | None = None,
) -> str | tuple[str, ...]:
    """A free text, or the names of classes.

    Args:
        classes: Names, or None.
        texts: A free text, or None.
        known: Names if there is neither. Defaults to None.

    Raises:
        ValueError: If nothing is asked for, or two things.
    """
    if classes is not None and texts is not None:
        raise ValueError('pass classes or texts, not both.')
    if texts is not None:
        if not isinstance(texts, str):
            raise ValueError(
                'texts is one free text for all images; pass a list of '
                'names as classes.'
            )
        return texts
    classes = known if classes is None else classes
    if classes is None or isinstance(classes, str):
        raise ValueError(
            "say what to look for: classes=['cat', 'remote control'], or "
            "texts='a cat beside a remote control'."
        )
    return tuple(classes)
