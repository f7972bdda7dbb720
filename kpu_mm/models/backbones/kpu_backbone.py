"""KPUBackbone: a frozen DINO ViT and a trainable ViT-Adapter."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from mmcv.cnn import build_norm_layer
from torch import Tensor, nn

from kpu_mm.registry import MODELS
from kpu_mm.structures import Features

from ..adapters import (
    Geometry,
    InteractionBlock,
    SpatialPrior,
    flatten_levels,
    init_adapter,
    merge_levels,
    reference_points,
    split_layers,
    split_levels,
)
from .outputs import check_choice
from .sentinel_backbone import SentinelBackbone


@MODELS.register_module()
class KPUBackbone(SentinelBackbone):
    """Frozen sentinel and trainable adapter, from image to pyramid.

    KPU (https://arxiv.org/abs/2508.14707) over DINOv2
    (https://arxiv.org/abs/2304.07193) and ViT-Adapter
    (https://arxiv.org/abs/2205.08534). The ViT sees the image resized to
    the nearest multiple of its patch size, the spatial prior the image
    itself; any height and width from 32 works. Images come in as every
    OpenMMLab backbone takes them, normalised by the data preprocessor with
    ImageNet's mean and standard deviation (RGB); :meth:`normalise` does
    that for raw images.

    Args:
        sentinel: Hub name or local folder of a DINOv2 or DINOv3 ViT, or a
            dict of its config (with ``model_type``) for random weights.
        frozen: What is not trained: 'sentinel', 'all', or 'none'. Frozen
            parts get no gradient and stay in eval mode. A frozen sentinel
            is absent from checkpoints, which hold its name and checksum
            instead. Defaults to 'sentinel'.
        num_interactions: Interaction blocks K. Defaults to 4.
        inplanes: Channels of the spatial prior's stem. Defaults to 64.
        num_heads: Heads of the deformable attentions; None takes the
            sentinel's. Defaults to None.
        num_points: Sampling points per head and level. Defaults to 4.
        value_ratio: Channels of attention values over the sentinel's width.
            Defaults to 0.5.
        ffn_ratio: Hidden channels of the extractors' feed-forward network
            over the sentinel's width. Defaults to 0.25.
        num_extra_extractors: Extractors added to the last block. Defaults
            to 2.
        init_gamma: Initial gamma of the injectors; at 0 an untrained
            backbone's summary is the sentinel's own. Defaults to 0.0.
        drop_path_rate: Drop path of the extractors. Defaults to 0.0.
        out_indices: Which strides of 4 to 32. Defaults to (0, 1, 2, 3).
        out_type: 'pyramid'; for classification heads 'summary', or
            'summary_spatial': summary and mean of the map of stride 16;
            'features' for owners that call :meth:`extract`. Parts of no use
            to it are not trained. Defaults to 'pyramid'.
        norm_cfg: Config of the norm layers. Defaults to ``dict(type='BN')``.
        with_cp: Recompute blocks to save memory. Defaults to False.
        init_cfg: ``dict(type='Pretrained', checkpoint=...)`` takes a
            distiller's or a detector's checkpoint or an exported file and
            names every missing and unexpected key. Defaults to None.

    Raises:
        ValueError: If an option has a value that is not listed.
    """

    strides = (4, 8, 16, 32)

    def __init__(
        self,
        sentinel: str | dict[str, Any],
        frozen: str = 'sentinel',
        num_interactions: int = 4,
        inplanes: int = 64,
        num_heads: int | None = None,
        num_points: int = 4,
        value_ratio: float = 0.5,
        ffn_ratio: float = 0.25,
        num_extra_extractors: int = 2,
        init_gamma: float = 0.0,
        drop_path_rate: float = 0.0,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        out_type: str = 'pyramid',
        norm_cfg: dict[str, Any] | None = None,
        with_cp: bool = False,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        check_choice('frozen', frozen, ('sentinel', 'all', 'none'))
        super().__init__(sentinel, out_type, out_indices, init_cfg)
        norm_cfg = norm_cfg or dict(type='BN')
        self.spans = split_layers(self.sentinel.num_layers, num_interactions)
        self.frozen = frozen
        dims = self.embed_dims = self.sentinel.embed_dims

        self.prior = SpatialPrior(dims, inplanes, norm_cfg)
        self.level_embed = nn.Parameter(torch.zeros(3, dims))
        attention = dict(
            num_heads=num_heads or self.sentinel.num_heads,
            num_points=num_points,
            value_ratio=value_ratio,
        )
        last = num_interactions - 1
        self.interactions = nn.ModuleList(
            InteractionBlock(
                dims,
                num_levels=3,
                attention=attention,
                init_gamma=init_gamma,
                ffn_ratio=ffn_ratio,
                drop_path=drop_path_rate,
                num_extractors=1 + num_extra_extractors * (i == last),
                with_cp=with_cp,
            )
            for i in range(num_interactions)
        )
        self.up = nn.ConvTranspose2d(dims, dims, 2, stride=2)
        self.norms = nn.ModuleList(
            build_norm_layer(norm_cfg, dims)[1] for _ in range(4)
        )
        init_adapter(
            [m for name, m in self.named_modules() if 'sentinel' not in name]
        )
        nn.init.normal_(self.level_embed)
        if frozen == 'all':
            self.requires_grad_(False)
        elif frozen == 'sentinel':
            self.sentinel.requires_grad_(False)
        self.outputs.freeze_unused(self)
        self._guard_checkpoints(self.sentinel, trained=frozen == 'none')

    @property
    def out_channels(self) -> tuple[int, ...]:
        """Channels of what :meth:`forward` gives."""
        return self.outputs.channels(self.embed_dims)

    def forward(self, images: Tensor) -> tuple[Any, ...]:
        """Features as OpenMMLab's necks and heads take them.

        Args:
            images: Normalised images, (B, 3, H, W), H and W from 32.

        Returns:
            For ``out_type='pyramid'`` the maps of ``out_indices``, each
            (B, C, ceil(H / stride), ceil(W / stride)); for 'summary' one
            tensor (B, C); for 'summary_spatial' one tensor (B, 2 C); for
            'features' what :meth:`extract` gives.
        """
        return self.outputs.select(self.extract(images))

    def extract(self, images: Tensor) -> Features:
        """Summary and all four maps of normalised images (B, 3, H, W).

        Raises:
            ValueError: If a side is shorter than 32 pixels.
        """
        if min(images.shape[-2:]) < 32:
            raise ValueError(
                f'images of {images.shape[-2]} x {images.shape[-1]} pixels '
                'are too small: KPUBackbone needs 32 or more on each side.'
            )
        fine, *coarse = self.prior(images)
        shapes = [(m.shape[-2], m.shape[-1]) for m in coarse]
        levels = flatten_levels(
            [
                m + embed[:, None, None]
                for m, embed in zip(coarse, self.level_embed, strict=True)
            ]
        )
        tokens, grid, rope = self.sentinel.embed(images)
        geometry = Geometry(
            self.sentinel.num_prefix,
            grid,
            shapes,
            reference_points([grid], tokens),
            reference_points(shapes, tokens),
        )
        vit_maps = []
        for block, (start, stop) in zip(
            self.interactions, self.spans, strict=True
        ):
            span = partial(
                self.sentinel.run, rope=rope, start=start, stop=stop
            )
            tokens, levels = block(tokens, levels, span, geometry)
            patches = tokens[:, geometry.num_prefix :]
            vit_maps += split_levels(patches, [grid])
        summary = self.sentinel.norm(tokens[:, 0])
        maps = split_levels(levels, shapes)
        # ceil(H / 8) rows doubled are ceil(H / 4) or one more.
        fine = fine + self.up(maps[0])[..., : fine.shape[-2], : fine.shape[-1]]
        return Features(
            summary, merge_levels(self.norms, [fine, *maps], vit_maps)
        )

    def train(self, mode: bool = True) -> KPUBackbone:
        """Set the mode of what is trained; frozen parts stay in eval."""
        super().train(mode and self.frozen != 'all')
        return self
