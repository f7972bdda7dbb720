"""ViTBackbone: a ViT without an adapter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from kpu_mm.registry import MODELS
from kpu_mm.structures import Features

from ..encoder import to_map
from ..layers.feature_pyramid import FeaturePyramid
from .base_backbone import check_choice
from .sentinel_backbone import SentinelBackbone


@MODELS.register_module()
class ViTBackbone(SentinelBackbone):
    """A plain ViT, trained end to end or frozen, with no adapter.

    The student of AM-RADIO (https://arxiv.org/abs/2312.06709) as KPU's
    ablation Base_a has it: initialised from DINOv2
    (https://arxiv.org/abs/2304.07193). Images are resized to the nearest
    multiple of its patch size. It has one map, of its patch tokens, and the
    summary of its library, a class token or a pooling. For detection and
    segmentation ViTDet's feature pyramid (https://arxiv.org/abs/2203.16527)
    is made of the map; it is no part of a student and always trained.

    Args:
        sentinel: A plain ViT of any image size, as of a KPUBackbone.
        frozen: 'sentinel', or 'none' to train the ViT, which checkpoints
            then hold. Defaults to 'sentinel'.
        blocks: After which blocks of the ViT, numbered from 1 and in order,
            features are taken; those of several are joined along the
            channels. Several need a ViT with a class token. Defaults to
            None, the last one.
        out_indices: Which of strides 4, 8, 16 and 32 a pyramid has.
            Defaults to (0, 1, 2, 3).
        out_type: 'pyramid', with as many channels as the map; for
            classification heads 'summary', or 'summary_spatial': summary
            and mean of the map; 'features' for models that call
            :meth:`extract`. Defaults to 'pyramid'.
        init_cfg: ``dict(type='Pretrained', checkpoint=...)`` takes a
            distiller's or a detector's checkpoint or an exported file and
            names every missing and unexpected key. Defaults to None.

    Raises:
        ValueError: If an option has a value that is not listed.
    """

    external_prefixes = ('levels.',)

    def __init__(
        self,
        sentinel: str | dict[str, Any],
        frozen: str = 'sentinel',
        blocks: Sequence[int] | None = None,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        out_type: str = 'pyramid',
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        check_choice('frozen', frozen, ('sentinel', 'none'))
        super().__init__(sentinel, out_type, out_indices, init_cfg)
        last = self.sentinel.num_layers
        self.blocks = (last,) if blocks is None else tuple(blocks)
        rising = sorted(set(self.blocks) & set(range(1, last + 1)))
        if not rising or rising != list(self.blocks) or rising[-1] != last:
            raise ValueError(
                f'blocks={self.blocks}: name rising blocks of the ViT from 1 '
                f'to {last}, the last one among them.'
            )
        if len(self.blocks) > 1 and not self.sentinel.class_token:
            raise ValueError(
                f"blocks={self.blocks}: '{self.sentinel.name}' has no class token to take from "
                'several blocks; name the last one only.'
            )
        if self.sentinel.image_size:
            raise ValueError(
                f"'{self.sentinel.name}' takes images of {self.sentinel.image_size} pixels only, "
                'so its map has no fixed stride; use a kpu_mm.KPUBackbone or another ViT.'
            )
        self.embed_dims = len(self.blocks) * self.sentinel.embed_dims
        self.strides = (self.sentinel.patch_size,)
        if out_type == 'pyramid':
            self.levels = self.build_levels(out_indices)
            self.freeze_summary()
        if frozen == 'sentinel':
            self.sentinel.requires_grad_(False)
        self._guard_checkpoints(trained=frozen == 'none')

    def build_levels(self, indices: Sequence[int]) -> FeaturePyramid:
        """A new pyramid over the map.

        Args:
            indices: Which of strides 4, 8, 16 and 32 it has.
        """
        return FeaturePyramid(self.channels, self.strides, self.embed_dims, indices)

    def extract(self, images: Tensor) -> Features:
        """Summary and map of normalised images (B, 3, H, W).

        Returns:
            Summary (B, C) and one map (B, C, H / patch, W / patch), of sizes
            rounded to the nearest. With several blocks C holds one after
            another's; only the last one's have passed the final norm.
        """
        # Each block continues where the one before stopped.
        tokens, grid, options = self.embed(images)
        taken, start = [], 0
        for stop in self.blocks:
            tokens = self.sentinel.run(tokens, options, start, stop)
            taken.append(tokens)
            start = stop
        summaries = [t[:, 0] for t in taken[:-1]]
        summaries.append(self.sentinel.summarise(tokens))
        # as in DINOv2, only what leaves the ViT is normed
        taken[-1] = self.sentinel.norm(tokens)
        joined = torch.cat(taken, dim=-1)  # (B, P + N, C)
        m = to_map(joined[:, self.sentinel.num_prefix :], grid)
        # a view of tokens would tie an exported graph to its batch size
        return Features(torch.cat(summaries, dim=-1), (m.contiguous(),))
