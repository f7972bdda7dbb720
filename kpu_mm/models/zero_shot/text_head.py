"""What heads over a text bank have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from ..frozen import ExternalModule
from .class_names import find_classes
from .text_bank import TextBank, find_templates


class TextHead(ExternalModule):
    """A head whose weights are text embeddings of class names.

    It has no parameters and an empty state dict. The embeddings are computed
    on the device of the head, when they are first asked for.

    Args:
        clip: The CLIP whose text tower it is: arguments of
            :class:`CLIPTeacher` besides ``with_text``.
        classes: Names; 'imagenet'; or a data set of MMSegmentation, such as
            'ade20k'. Defaults to 'imagenet'.
        templates: Prompts with '{}' in the place of the name; None takes
            the 80 of open_clip for ImageNet. Defaults to None.
        cache_dir: Folder that keeps embeddings for the next run. Defaults
            to None.

    Raises:
        ValueError: If there is no class, a name that says nothing, or a
            template without a place for it.
    """

    def __init__(
        self,
        clip: Mapping[str, Any],
        classes: str | Sequence[str] = 'imagenet',
        templates: Sequence[str] | None = None,
        cache_dir: str | Path | None = None,
    ) -> None:
        super().__init__()
        self.set_classes(classes, templates)
        self.bank = TextBank(clip, cache_dir)

    def set_classes(
        self,
        classes: str | Sequence[str],
        templates: Sequence[str] | None = None,
    ) -> None:
        """Take other classes from now on.

        Args:
            classes: As in the constructor.
            templates: As in the constructor. Defaults to None.
        """
        self.classes = find_classes(classes)
        self.templates = find_templates(templates)

    @property
    def num_classes(self) -> int:
        """How many classes there are."""
        return len(self.classes)

    @property
    def text(self) -> Tensor:
        """One unit column for each class, (D, K)."""
        return self.bank.embed(self.classes, self.templates)
