"""TextBank: class names as embeddings of a CLIP's text tower."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import open_clip
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from kpu_mm.weights.state_dict import load_state

from ..frozen import FrozenModule
from ..teachers import CLIPTeacher


class TextBank(FrozenModule):
    """Text embeddings, computed once for each class list.

    Zero-shot classification as in CLIP (https://arxiv.org/abs/2103.00020):
    a class is the mean of its prompts' embeddings.

    Args:
        clip: Arguments of :class:`CLIPTeacher` besides ``with_text``.
        cache_dir: Folder where embeddings are kept for the next run, by
            weights, names and templates; None keeps them in memory only.
            Defaults to None.
    """

    def __init__(
        self, clip: Mapping[str, Any], cache_dir: str | Path | None = None
    ) -> None:
        super().__init__()
        self.teacher = CLIPTeacher(**clip, with_text=True)
        self.cache_dir = None if cache_dir is None else Path(cache_dir)
        self._embeddings: dict[str, Tensor] = {}
        self._weights: str | None = None

    @property
    def model(self) -> Any:
        """The CLIP with both towers."""
        return self.teacher.model

    @torch.no_grad()
    def embed(
        self,
        classes: Sequence[str],
        templates: Sequence[str] | None = None,
    ) -> Tensor:
        """Embed class names.

        Args:
            classes: Names.
            templates: Prompts with '{}' in the place of the name; None takes
                the 80 of open_clip for ImageNet. Defaults to None.

        Returns:
            One unit column for each class, (D, K).

        Raises:
            ValueError: If a template has no place for a name, or a prompt is
                longer than the text tower takes.
        """
        templates = find_templates(templates)
        key = hashlib.sha256(
            json.dumps([list(classes), list(templates)]).encode()
        ).hexdigest()
        if key not in self._embeddings:
            self._embeddings[key] = self._stored(key, classes, templates)
        device = self.model.logit_scale.device
        return self._embeddings[key].to(device)

    def logits(self, features: Tensor, text: Tensor) -> Tensor:
        """Similarity of image features and classes, as the CLIP scales it.

        Args:
            features: In the space of text embeddings, of any length,
                (..., D).
            text: What :meth:`embed` gave, (D, K).

        Returns:
            (..., K).
        """
        features = F.normalize(features, dim=-1)
        logits: Tensor = self.model.logit_scale.exp() * features @ text
        bias = self.model.logit_bias
        return logits if bias is None else logits + bias

    def cosine(self, logits: Tensor) -> Tensor:
        """Logits back to the cosine of the angle they come from.

        Args:
            logits: What :meth:`logits` gave, of any shape.
        """
        bias = self.model.logit_bias
        cosine: Tensor = logits if bias is None else logits - bias
        return cosine / self.model.logit_scale.exp()

    def scores(self, logits: Tensor) -> Tensor:
        """Logits to [0, 1]: softmax, or sigmoid for a SigLIP.

        Args:
            logits: (..., K).
        """
        if self.model.logit_bias is None:
            return logits.softmax(-1)
        return logits.sigmoid()

    def _stored(
        self, key: str, classes: Sequence[str], templates: Sequence[str]
    ) -> Tensor:
        """From the folder, where it is put if it is not there yet."""
        if self.cache_dir is None:
            return self._compute(classes, templates)
        path = self.cache_dir / f'{self._checksum()}-{key}.safetensors'
        if path.is_file():
            return load_state(path)['text']
        text = self._compute(classes, templates)
        self.cache_dir.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=self.cache_dir) as partial:
            save_file({'text': text.cpu()}, Path(partial, path.name))
            os.replace(Path(partial, path.name), path)
        return text

    def _compute(
        self, classes: Sequence[str], templates: Sequence[str]
    ) -> Tensor:
        text: Tensor = open_clip.build_zero_shot_classifier(
            self.model,
            _Whole(self.teacher.tokenizer()),
            classes,
            templates,
            device=self.model.logit_scale.device,
        )
        return text

    def _checksum(self) -> str:
        """Of all weights but the image tower's."""
        if self._weights is None:
            digest = hashlib.sha256()
            for name, value in sorted(self.model.state_dict().items()):
                if not name.startswith('visual.'):
                    digest.update(value.contiguous().cpu().numpy().tobytes())
            self._weights = digest.hexdigest()[:16]
        return self._weights


class _Whole:
    """A tokenizer that refuses what it would cut off.

    Args:
        tokenizer: open_clip's.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.limit: int = tokenizer.context_length
        # an end-of-text token fills up the rows of some tokenizers
        self.filling = tokenizer(['a'], self.limit + 1)[0, -1]

    def __call__(self, texts: list[str]) -> Tensor:
        tokens: Tensor = self.tokenizer(texts)
        longer = self.tokenizer(texts, self.limit + 1)
        cut = (longer[:, :-1] != tokens).any(1)
        cut |= longer[:, -1] != self.filling
        if cut.any():
            text = texts[int(cut.int().argmax())]
            raise ValueError(
                f'the prompt {_shorten(text)!r} has more tokens than the '
                f'text tower takes, {self.limit}; shorten the class name or '
                'the template.'
            )
        return tokens


def find_templates(templates: Sequence[str] | None) -> tuple[str, ...]:
    """Check templates, or take open_clip's.

    Args:
        templates: Prompts with '{}' in the place of the name; None for the
            80 of open_clip.

    Raises:
        ValueError: If there is none, or one without a place for a name.
    """
    if templates is None:
        return tuple(t('{}') for t in open_clip.OPENAI_IMAGENET_TEMPLATES)
    if isinstance(templates, str) or not templates:
        raise ValueError(
            f'templates={templates!r}: pass a list with at least one text '
            "such as 'a photo of a {}.'."
        )
    for template in templates:
        if '{}' not in template:
            raise ValueError(
                f"the template {template!r} has no '{{}}' in the place of "
                'the class name.'
            )
    return tuple(templates)


def _shorten(text: str, limit: int = 60) -> str:
    return text if len(text) <= limit else text[: limit - 3] + '...'
