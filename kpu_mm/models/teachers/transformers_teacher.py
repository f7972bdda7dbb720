"""Any vision model of transformers."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from math import lcm
from typing import Any, Literal

from torch import Tensor
from transformers import AutoConfig, AutoModel
from transformers.models.auto.modeling_auto import MODEL_FOR_BACKBONE_MAPPING

from kpu_mm.registry import MODELS
from kpu_mm.structures import Features
from kpu_mm.weights.hub import fetch_folder
from kpu_mm.weights.pretrained import load_transformers, read_normalization

from ..encoder import to_map
from .base_teacher import BaseTeacher


@MODELS.register_module()
class TransformersTeacher(BaseTeacher):
    """The last hidden state, or stages, of a vision model.

    Without ``out_indices`` the model is an ``AutoModel``: its last hidden
    state is a map (B, C, H, W) or patch tokens behind optional prefix
    tokens. With ``out_indices`` it is the model's backbone class, and those
    stages are the maps. Of a promptable model such as
    `SAM 2 <https://arxiv.org/abs/2408.00714>`_ only the image encoder is kept,
    and the levels of its feature pyramid (strides 4, 8 and 16) are the maps.
    Whatever fits none of these is refused.

    Args:
        source: Folder of a transformers model, or its name on the hub.
        summary: 'cls' for the first token, 'pooler' for the pooled output,
            None for no summary. Defaults to None.
        out_indices: Stages of the backbone class, where 0 is the stem; needs
            ``summary=None``. Defaults to None.
        mean: Mean in units of [0, 1]; None reads it from the folder's
            preprocessor_config.json. Defaults to None.
        std: Standard deviation, as ``mean``. Defaults to None.
        resolution: Resize every image to this (H, W), for models that take
            one size only; None keeps its size. Defaults to None.

    Raises:
        ValueError: If the model cannot be read this way.
    """

    def __init__(
        self,
        source: str,
        summary: Literal['cls', 'pooler'] | None = None,
        out_indices: Sequence[int] | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        resolution: tuple[int, int] | None = None,
    ) -> None:
        if summary not in ('cls', 'pooler', None):
            raise ValueError(f"summary must be 'cls', 'pooler' or None, is {summary!r}")
        if out_indices is not None and summary is not None:
            raise ValueError(
                'a backbone class gives maps only: set summary=None, or remove out_indices'
            )
        folder = fetch_folder(source)
        mean, std = read_normalization(folder, mean, std)
        try:
            config = AutoConfig.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            )
        except (KeyError, ValueError) as error:
            raise ValueError(
                f"the config.json in '{folder}' is that of no model which "
                'transformers knows without code of its own; pass another source'
            ) from error
        if hasattr(config, 'vision_config') and hasattr(config, 'text_config'):
            raise ValueError(
                f"'{source}' reads images and text: pass a saved vision "
                'tower, or use CLIPTeacher or GroundingDINOTeacher'
            )
        super().__init__(mean, std, resolution, _size_divisor(config))
        self.summary = summary
        self.stages = out_indices is not None
        # what no output depends on: a classifier's weights have no pooler
        unused = ['mask_token'] + ['pooler.'] * (summary != 'pooler')
        cls: Any = AutoModel
        options = {}
        if out_indices is not None:
            if type(config) not in MODEL_FOR_BACKBONE_MAPPING:
                raise ValueError(
                    f"'{config.model_type}' has no backbone class in "
                    'transformers: remove out_indices, or take it from timm by TimmTeacher'
                )
            cls = MODEL_FOR_BACKBONE_MAPPING[type(config)]
            options = dict(out_indices=list(out_indices))
        model: Any = load_transformers(cls, folder, unused, **options)
        # of a promptable model, what it runs before it looks at prompts
        self.model = getattr(model, 'vision_encoder', model)
        parameters = inspect.signature(self.model.forward).parameters
        # without it, some take the size of their training only
        name = 'interpolate_pos_encoding'
        self.options = {name: True} if name in parameters else {}
        try:
            self.probe()
        except (ValueError, RuntimeError, TypeError, AttributeError) as error:
            raise ValueError(
                f"'{source}' cannot be read as a teacher: {error}; if it "
                'takes images of one size only, set resolution to it'
            ) from error

    def extract(self, images: Tensor, mask: Tensor | None) -> Features:
        """Run the model.

        Args:
            images: Normalised images, (B, 3, H, W).
            mask: Not used: padding is zero and part of the image.

        Returns:
            The summary (B, D) or None, and the maps (B, C, H, W).

        Raises:
            ValueError: If the output has no such summary or grid.
        """
        out: Any = self.model(images, **self.options)
        if self.stages:
            return Features(None, tuple(out.feature_maps))
        if 'fpn_hidden_states' in out:
            if self.summary is not None:
                raise ValueError('it has a pyramid and no summary: set summary=None')
            return Features(None, tuple(out.fpn_hidden_states))
        m = hidden = out.last_hidden_state
        prefix = 0
        if hidden.ndim == 3:
            # (B, P + N, C): the tokens that are no patches come first
            patch = self.size_divisor
            rows, columns = (side // patch for side in images.shape[-2:])
            prefix = hidden.shape[1] - rows * columns
            if prefix < 0 or patch == 1:
                raise ValueError(
                    f'its {hidden.shape[1]} tokens are no grid of '
                    f'{rows} x {columns} patches; set out_indices'
                )
            m = to_map(hidden[:, prefix:], (rows, columns))
        return Features(self._summarize(out, hidden, prefix), (m,))

    def _summarize(self, out: Any, hidden: Tensor, prefix: int) -> Tensor | None:
        if self.summary is None:
            return None
        if self.summary == 'cls':
            if not prefix:
                raise ValueError("it has no class token: summary='cls'")
            return hidden[:, 0]
        pooled = getattr(out, 'pooler_output', None)
        if pooled is None:
            raise ValueError("it has no pooled output: summary='pooler'")
        return pooled.flatten(1)  # of a convolutional model (B, C, 1, 1)


def _size_divisor(config: Any) -> int:
    """Images must have sides that are multiples of this many pixels."""
    vision = getattr(config, 'vision_config', config)
    hiera: Any = getattr(vision, 'backbone_config', None)
    if getattr(hiera, 'model_type', None) == 'sam2_hiera_det_model':
        # whole windows of positions, and maps that can be halved to the last
        window, halvings = hiera.window_size_per_stage[0], hiera.num_query_pool_stages
        return int(hiera.patch_stride[0] * lcm(window, 2**halvings))
    # a convolutional model's patch_size is its stem's, not its grid's
    patch = getattr(config, 'patch_size', None)
    return patch if isinstance(patch, int) else 1
