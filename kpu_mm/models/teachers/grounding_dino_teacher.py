"""GroundingDINO and MM-GroundingDINO."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
import transformers
from torch import Tensor, nn
from transformers import GroundingDinoForObjectDetection, GroundingDinoProcessor
from transformers.models.mm_grounding_dino import modeling_mm_grounding_dino as mm_grounding_dino

from kpu_mm.registry import MODELS
from kpu_mm.structures import Features
from kpu_mm.weights.hub import fetch_folder
from kpu_mm.weights.pretrained import load_transformers, read_config, read_normalization

from .base_teacher import BaseTeacher

_FAMILY: dict[str, Any] = {
    'grounding-dino': GroundingDinoForObjectDetection,
    'mm-grounding-dino': mm_grounding_dino.MMGroundingDinoForObjectDetection,
}
# files of released models hold one box head for each decoder layer
_TIES_BOX_HEADS = int(transformers.__version__.partition('.')[0]) >= 5


@MODELS.register_module()
class GroundingDINOTeacher(BaseTeacher):
    """The image backbone of GroundingDINO: the maps that its neck receives.

    `GroundingDINO <https://arxiv.org/abs/2303.05499>`_,
    `MM-GroundingDINO <https://arxiv.org/abs/2401.02361>`_. Three normed maps
    of strides 8, 16 and 32; no summary. Images of any size.

    Args:
        source: Folder of a transformers model, or its name on the hub, such
            as 'IDEA-Research/grounding-dino-base'.
        mean: Mean in units of [0, 1]; None reads it from the folder's
            preprocessor_config.json. Defaults to None.
        std: Standard deviation, as ``mean``. Defaults to None.
        with_text: Keep the whole detector, as :attr:`model`, for zero-shot
            work; else only the image backbone stays in memory. Defaults to
            False.

    Raises:
        ValueError: If the model is of another family.
    """

    def __init__(
        self,
        source: str,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        with_text: bool = False,
    ) -> None:
        folder = fetch_folder(source)
        family = read_config(folder).get('model_type')
        if family not in _FAMILY:
            raise ValueError(
                f"'{source}' is a model of type '{family}', but "
                f'GroundingDINOTeacher takes {sorted(_FAMILY)}'
            )
        if with_text and family.startswith('mm-') and _TIES_BOX_HEADS:
            raise ValueError(
                'this version of transformers ties the box heads of '
                'MM-GroundingDINO, so its boxes would be wrong; install '
                "'transformers<5' or build the teacher without text"
            )
        super().__init__(*read_normalization(folder, mean, std))
        model: Any = load_transformers(_FAMILY[family], folder)
        check_text_attention(model)
        self.model = model if with_text else None
        self.encoder = model.model.backbone.conv_encoder
        self.folder = folder
        self.probe()

    def extract(self, images: Tensor, mask: Tensor | None) -> Features:
        """Run the image backbone.

        Args:
            images: Normalised images, (B, 3, H, W).
            mask: Real pixels, (B, H, W) bool, or None.

        Returns:
            The maps (B, C, H, W).
        """
        # The encoder wants a mask; its own masks of the maps are not used.
        if mask is None:
            mask = images.new_ones(images[:, 0].shape, dtype=torch.bool)
        levels = self.encoder(images, mask)
        return Features(None, tuple(level for level, _ in levels))

    def processor(self) -> Any:
        """The tokenizer and the post-processing of the detector.

        Returns:
            A GroundingDinoProcessor.

        Raises:
            FileNotFoundError: If its files are not at hand.
        """
        try:
            return GroundingDinoProcessor.from_pretrained(
                self.folder, local_files_only=True, trust_remote_code=False
            )
        # a tokenizer without files fails with a TypeError
        except (OSError, ValueError, TypeError) as error:
            raise FileNotFoundError(
                f"The processor in '{self.folder}' cannot be read: put "
                'preprocessor_config.json, tokenizer.json and tokenizer_config.json there.'
            ) from error

    @contextmanager
    def inject(self, maps: Sequence[Tensor]) -> Iterator[nn.Module]:
        """Give the detector maps in the place of its own backbone's.

        Args:
            maps: As many maps, of the same channels, as the teacher's.

        Yields:
            The detector; call it with ``pixel_values`` of the right batch
            size, an explicit ``pixel_mask`` and the text.

        Raises:
            RuntimeError: If the teacher was built without text.
            ValueError: If the maps have other channels.
        """
        if self.model is None:
            raise RuntimeError(
                'only the image backbone was kept: build the teacher with '
                'with_text=True to run its detector'
            )
        channels = tuple(m.shape[1] for m in maps)
        if channels != self.channels:
            raise ValueError(f'the detector takes maps of {self.channels} channels, got {channels}')
        backbone = self.model.model.backbone
        backbone.conv_encoder = _InjectedMaps(maps)
        try:
            yield self.model
        finally:
            backbone.conv_encoder = self.encoder


class _InjectedMaps(nn.Module):
    """Given maps in the place of GroundingDINO's image backbone."""

    def __init__(self, maps: Sequence[Tensor]) -> None:
        super().__init__()
        self.maps = tuple(maps)

    def forward(self, pixel_values: Tensor, pixel_mask: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Each map with its mask (B, h, w) bool, as the backbone gives them.

        Args:
            pixel_values: Not used.
            pixel_mask: 1 for a real pixel, (B, H, W).
        """
        # (B, H, W) -> (1, B, H, W), the images as channels
        mask = pixel_mask[None].float()
        return [(m, F.interpolate(mask, size=m.shape[-2:]).bool()[0]) for m in self.maps]


def check_text_attention(model: Any) -> None:
    """Refuse settings under which the text features are wrong.

    Args:
        model: The detector.

    Raises:
        RuntimeError: If its BERT does not run sdpa attention.
    """
    # Eager attention of transformers 5 adds the phrase mask as 0 and 1
    # instead of masking with it.
    found = model.model.text_backbone.config._attn_implementation
    if found != 'sdpa':
        raise RuntimeError(
            f"GroundingDINO's text backbone runs '{found}' attention, which "
            'masks phrases wrongly in some versions of transformers; it '
            "needs 'sdpa': remove attn_implementation from its config.json"
        )
