"""Heads whose weights are a CLIP's text embeddings of class names."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import open_clip
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Size, Tensor

from kpu_mm.registry import MODELS
from kpu_mm.structures import bilinear
from kpu_mm.weights.state_dict import checksum, load_state

from ..frozen import ExternalModule
from ..teachers import CLIPTeacher
from .prompts import check_known, find_classes, find_templates, tokenize


class TextHead(ExternalModule):
    """A classifier over the text embeddings of class names.

    Zero-shot classification as in CLIP (https://arxiv.org/abs/2103.00020): a
    class is the mean of its prompts' embeddings. The head has no parameters
    and an empty state dict. The embeddings of a class list are computed
    once, on the device of the head, when they are needed.

    Args:
        clip: The CLIP whose text tower it is: arguments of
            :class:`CLIPTeacher` besides ``with_text``.
        classes: Names; 'imagenet'; or a data set of MMSegmentation, such as
            'ade20k'. Defaults to 'imagenet'.
        templates: Prompts with '{}' in the place of the name; None takes
            the 80 of open_clip for ImageNet. Defaults to None.
        cache_dir: Folder that keeps embeddings for the next run, by weights,
            names and templates. Defaults to None, memory only.

    Raises:
        ValueError: If there is no class, a name without a meaning, or a
            template without '{}' or with other braces.
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
        self.teacher = CLIPTeacher(**clip, with_text=True)
        self.cache_dir = None if cache_dir is None else Path(cache_dir)
        self._embeddings: dict[str, Tensor] = {}

    def set_classes(
        self, classes: str | Sequence[str] | None, templates: Sequence[str] | None = None
    ) -> None:
        """Replace the classes.

        Args:
            classes: As in the constructor; None changes nothing.
            templates: As in the constructor. Defaults to None.

        Raises:
            ValueError: As in the constructor, or for templates alone.
        """
        if classes is not None:
            self.classes = find_classes(classes)
            self.templates = find_templates(templates)
        elif templates is not None:
            raise ValueError('templates belong to classes; pass these too.')

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.classes)

    @property
    def model(self) -> Any:
        """The CLIP with both towers."""
        return self.teacher.model

    @torch.no_grad()
    def embed(self, classes: Sequence[str], templates: Sequence[str]) -> Tensor:
        """Embed class names.

        Args:
            classes: Names.
            templates: Prompts with '{}' in the place of the name.

        Returns:
            One unit column for each class, (D, K).

        Raises:
            ValueError: If a prompt is longer than the text tower takes, or
                no word of a name is known.
        """
        # JSON keeps the borders of names, unlike a joined text.
        lists = json.dumps([list(classes), list(templates)])
        key = hashlib.sha256(lists.encode()).hexdigest()
        if key not in self._embeddings:
            self._embeddings[key] = self._load(key, classes, templates)
        return self._embeddings[key].to(self.model.logit_scale.device)

    def _load(self, key: str, *lists: Sequence[str]) -> Tensor:
        """Read embeddings from the cache, or compute and write them."""
        if self.cache_dir is None:
            return self._compute(*lists)
        # The image tower has no influence on text.
        weights = checksum(
            value
            for name, value in self.model.state_dict().items()
            if not name.startswith('visual.')
        )
        path = self.cache_dir / f'{weights[:16]}-{key}.safetensors'
        if path.is_file():
            return load_state(path)['text']
        text = self._compute(*lists)
        self.cache_dir.mkdir(parents=True, exist_ok=True)
        # Another process must not read a half-written file.
        with TemporaryDirectory(dir=self.cache_dir) as partial:
            save_file({'text': text.cpu()}, Path(partial, path.name))
            os.replace(Path(partial, path.name), path)
        return text

    def _compute(self, classes: Sequence[str], templates: Sequence[str]) -> Tensor:
        tokenizer: Any = self.teacher.tokenizer()
        # open_clip's own tokenizer knows every byte.
        if isinstance(tokenizer, open_clip.tokenizer.HFTokenizer):
            for name in classes:
                check_known(tokenizer.clean_fn(name), tokenizer.tokenizer)
        text: Tensor = open_clip.build_zero_shot_classifier(
            self.model,
            partial(tokenize, tokenizer),
            classes,
            # functions from a name to a prompt, as a name may have braces
            [partial(str.replace, template, '{}') for template in templates],
            device=self.model.logit_scale.device,
        )
        return text

    def logits(self, features: Tensor) -> Tensor:
        """Compare image features with the classes, as the CLIP scales it.

        Args:
            features: In the space of text embeddings, (..., D).

        Returns:
            (..., K).
        """
        text = self.embed(self.classes, self.templates)
        features = F.normalize(features, dim=-1)
        logits: Tensor = self.model.logit_scale.exp() * features @ text
        # Only a SigLIP has a bias.
        bias = self.model.logit_bias
        return logits if bias is None else logits + bias

    def cosine(self, logits: Tensor) -> Tensor:
        """Undo the scale and bias of :meth:`logits`, to [-1, 1].

        Args:
            logits: Of any shape.
        """
        bias = self.model.logit_bias
        cosine: Tensor = logits if bias is None else logits - bias
        return cosine / self.model.logit_scale.exp()

    def scores(self, logits: Tensor) -> Tensor:
        """Turn logits into scores in [0, 1], as the CLIP was trained.

        Args:
            logits: (..., K).
        """
        # A SigLIP scores each class by itself.
        if self.model.logit_bias is None:
            return logits.softmax(-1)
        return logits.sigmoid()


@MODELS.register_module()
class ZeroShotClsHead(TextHead):
    """Zero-shot classification, as a head of MMPretrain's ImageClassifier.

    `CLIP <https://arxiv.org/abs/2103.00020>`_: cosine similarity times the
    learnt scale, then softmax; for a `SigLIP
    <https://arxiv.org/abs/2303.15343>`_ plus its bias, then sigmoid. The
    arguments are those of :class:`TextHead`.
    """

    def forward(self, feats: Sequence[Tensor]) -> Tensor:
        """Compute logits.

        Args:
            feats: The backbone's tuple; its last item is the summary (B, D).

        Returns:
            (B, K).
        """
        return self.logits(feats[-1])

    def predict(
        self, feats: Sequence[Tensor], data_samples: Sequence[Any] | None = None
    ) -> list[Any]:
        """Compute scores and labels for MMPretrain's metrics.

        Args:
            feats: As :meth:`forward` takes them.
            data_samples: MMPretrain's; None makes new ones. Defaults to None.

        Returns:
            The samples with ``pred_score`` (K,) and ``pred_label``.
        """
        scores = self.scores(self(feats))
        if data_samples is None:
            from mmpretrain.structures import DataSample

            data_samples = [DataSample() for _ in scores]
        return [
            sample.set_pred_score(score).set_pred_label(score.argmax())
            for sample, score in zip(data_samples, scores, strict=True)
        ]


@MODELS.register_module()
class ZeroShotSegHead(TextHead):
    """Zero-shot segmentation, as a decode head of MMSegmentation.

    `MaskCLIP <https://arxiv.org/abs/2112.01071>`_ sends each patch token
    through the layers that CLIP has after its pooling, and compares it with
    text. It also leaves out the last block's attention, which a student of
    the last block's tokens cannot do: here the tokens are used as they are.
    See :meth:`CLIPTeacher.to_text_space`. The arguments are those of
    :class:`TextHead`.

    Attributes:
        align_corners: How MMSegmentation resizes the logits.
    """

    align_corners = False

    # MMSegmentation's name for the channels of the logits.
    out_channels = TextHead.num_classes

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Compute logits.

        Args:
            inputs: The backbone's maps, of which the last is read: the
                CLIP's patch tokens after its final norm, (B, C, H, W).

        Returns:
            (B, K, H, W).
        """
        tokens = self.teacher.to_text_space(inputs[-1])
        # (B, D, H, W) -> (B, H, W, D)
        logits = self.logits(tokens.permute(0, 2, 3, 1).contiguous())
        # (B, H, W, K) -> (B, K, H, W)
        return logits.permute(0, 3, 1, 2)

    def predict(
        self, inputs: Sequence[Tensor], batch_img_metas: Sequence[Mapping[str, Any]], test_cfg: Any
    ) -> Tensor:
        """Compute logits at the size of the network's input.

        Args:
            inputs: As :meth:`forward` takes them.
            batch_img_metas: With 'img_shape', and 'pad_shape' after padding.
            test_cfg: Not used; MMSegmentation passes it to every head.

        Returns:
            (B, K, H, W).

        Raises:
            ValueError: If there is one class only.
        """
        if self.num_classes < 2:
            raise ValueError(
                f'every pixel would be {self.classes[0]!r}: segmentation '
                "needs two classes at least; add one such as 'background'."
            )
        meta = batch_img_metas[0]
        size = meta['img_shape']
        # MMSegmentation gives its sliding windows' size as a torch.Size, and
        # they have no padding, whatever pad_shape says of the whole image.
        if not isinstance(size, Size):
            size = meta.get('pad_shape', size)
        return bilinear(self(inputs), (size[0], size[1]))
