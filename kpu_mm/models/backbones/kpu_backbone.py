"""KPUBackbone: a frozen ViT and a trainable ViT-Adapter."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from mmcv.cnn import build_norm_layer
from mmengine.utils.dl_utils.parrots_wrapper import _BatchNorm
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from kpu_mm.registry import MODELS
from kpu_mm.structures import Features

from ..encoder import ImageSizeError, to_map
from ..layers.deform_attention import flatten_levels, reference_points, split_levels
from ..layers.spatial_prior import SpatialPrior, init_adapter, merge_levels
from ..layers.vit_adapter import Geometry, InteractionBlock
from .base_backbone import POOLED, check_choice
from .sentinel_backbone import SentinelBackbone


@MODELS.register_module()
class KPUBackbone(SentinelBackbone):
    """Frozen sentinel and trainable adapter, from image to pyramid.

    KPU (https://arxiv.org/abs/2508.14707) over DINOv2
    (https://arxiv.org/abs/2304.07193) and ViT-Adapter
    (https://arxiv.org/abs/2205.08534). The ViT takes the image resized to
    the nearest multiple of its patch size, the spatial prior the image
    itself; any height and width from 32 works. Images come in as every
    OpenMMLab backbone takes them, normalised by the data preprocessor with
    ImageNet's mean and standard deviation (RGB); :meth:`normalise` does
    that for raw images.

    Args:
        sentinel: A plain ViT. Hub name or local folder of a DINOv2, DINOv3,
            ViT, DeiT, CLIP or SigLIP of transformers, ``'timm:NAME'`` or
            local folder of a ViT, MAE, EVA-02, BEiT, SigLIP 2, RADIO, ... of
            timm; or a dict of the model's config, with transformers'
            ``model_type`` or timm's ``architecture``, for random weights.
        frozen: What is not trained: 'sentinel', 'all', or 'none'. Frozen
            parts get no gradient and stay in eval mode. A frozen sentinel
            is absent from checkpoints, which hold its name and checksum
            instead. Defaults to 'sentinel'.
        num_interactions: Interaction blocks K. Defaults to 4.
        inplanes: Channels of the spatial prior's stem. Defaults to 64.
        num_heads: Heads of the deformable attentions; None takes the
            sentinel's. Defaults to None.
        num_points: Sampling points per head and level. Defaults to 4.
        num_extra_extractors: Extractors added to the last block. Defaults
            to 2.
        drop_path_rate: Drop path of the extractors. Defaults to 0.0.
        out_indices: Which strides of 4 to 32. Defaults to (0, 1, 2, 3).
        out_type: 'pyramid'; for classification heads 'summary', or
            'summary_spatial': summary and mean of the map of stride 16;
            'features' for models that call :meth:`extract`. Parts of no use
            to it are not trained. Defaults to 'pyramid'.
        norm_cfg: Config of the norm layers. Defaults to ``dict(type='BN')``.
        norm_eval: Batch norms keep their running statistics in training,
            too, as those of OpenMMLab's ResNets. Defaults to False.
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
        num_extra_extractors: int = 2,
        drop_path_rate: float = 0.0,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        out_type: str = 'pyramid',
        norm_cfg: dict[str, Any] | None = None,
        norm_eval: bool = False,
        with_cp: bool = False,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        check_choice('frozen', frozen, ('sentinel', 'all', 'none'))
        super().__init__(sentinel, out_type, out_indices, init_cfg)
        norm_cfg = norm_cfg or dict(type='BN')
        depth, blocks = self.sentinel.num_layers, num_interactions
        if not 1 <= blocks <= depth:
            raise ValueError(
                f'num_interactions={blocks}: the sentinel has {depth} layers, '
                f'choose from 1 to {depth}.'
            )
        # First layer of the ViT in each block, and the one after its last.
        bounds = [i * depth // blocks for i in range(blocks + 1)]
        self.spans = list(pairwise(bounds))
        self.frozen = frozen
        self.norm_eval = norm_eval
        self.with_cp = with_cp
        dims = self.embed_dims = self.sentinel.embed_dims

        self.prior = SpatialPrior(dims, inplanes, norm_cfg)
        self.level_embed = nn.Parameter(torch.zeros(3, dims))
        self.interactions = nn.ModuleList(
            InteractionBlock(
                dims,
                num_heads or self.sentinel.num_heads,
                num_points,
                drop_path_rate,
                # the last block has more of them
                num_extractors=1 + num_extra_extractors * (i == blocks - 1),
            )
            for i in range(blocks)
        )
        self.up = nn.ConvTranspose2d(dims, dims, 2, stride=2)
        self.norms = nn.ModuleList(build_norm_layer(norm_cfg, dims)[1] for _ in range(4))
        init_adapter([m for name, m in self.named_modules() if 'sentinel' not in name])
        # after init_adapter, which leaves single parameters alone
        nn.init.normal_(self.level_embed)
        if frozen != 'none':
            part = self if frozen == 'all' else self.sentinel
            part.requires_grad_(False)
        self._freeze_unused()
        self._guard_checkpoints(trained=frozen == 'none')

    def _freeze_unused(self) -> None:
        """Freeze what no output depends on: DDP refuses unused gradients."""
        kind = self.outputs.kind
        used = dict(
            pyramid=self.outputs.indices,
            summary=(),
            summary_spatial=(POOLED,),
            features=(0, 1, 2, 3),
        )[kind]
        # The finest level, made of the stem and of stride 8, needs both to
        # be projected; the last extractors serve the maps alone.
        norms: Any = self.norms
        unused = [norm for i, norm in enumerate(norms) if i not in used]
        if 0 not in used:
            unused += [self.up, self.prior.projections[0]]
        if not used:
            unused.append(self.interactions[-1].extractors)
        if kind == 'pyramid':
            self.freeze_summary()
        for part in unused:
            part.requires_grad_(False)

    def freeze_summary(self) -> None:
        """Freeze what serves the summary alone: DDP refuses unused gradients."""
        super().freeze_summary()
        # Maps are taken before it.
        self.sentinel.norm.requires_grad_(False)

    def extract(self, images: Tensor) -> Features:
        """Summary and all four maps of normalised images (B, 3, H, W).

        Raises:
            ImageSizeError: If a side is shorter than 32 pixels.
        """
        if min(images.shape[-2:]) < 32:
            raise ImageSizeError(
                f'images of {images.shape[-2]} x {images.shape[-1]} pixels '
                'are too small: KPUBackbone needs 32 or more on each side.'
            )
        fine, *coarse = self.prior(images)
        # Stride 4 has too many cells for attention: it joins at the end.
        shapes = [(m.shape[-2], m.shape[-1]) for m in coarse]
        # (3, C) -> (3, C, 1, 1), one for each map (B, C, H_l, W_l)
        embeds = self.level_embed.to(fine.dtype)[..., None, None]
        levels = flatten_levels(list(map(torch.add, coarse, embeds)))
        # tokens (B, P + N, C), levels (B, S, C)
        tokens, grid, options = self.embed(images)
        geometry = Geometry(
            self.sentinel.num_prefix,
            grid,
            shapes,
            reference_points([grid], tokens),
            reference_points(shapes, tokens),
        )
        vit_maps, vit_layers = [], partial(self.sentinel.run, options=options)
        recomputes = self.with_cp and torch.is_grad_enabled()
        blocks = zip(self.interactions, self.spans, strict=True)
        for block, (start, stop) in blocks:
            span = partial(vit_layers, start=start, stop=stop)
            run = partial(checkpoint, block, use_reentrant=False)
            exchange = run if recomputes else block
            tokens, levels = exchange(tokens, levels, span, geometry)
            vit_maps.append(to_map(tokens[:, geometry.num_prefix :], grid))
        summary = self.sentinel.summarise(tokens)
        maps = split_levels(levels, shapes)
        # ceil(H / 8) rows doubled are ceil(H / 4) or one more.
        fine = fine + self.up(maps[0])[..., : fine.shape[-2], : fine.shape[-1]]
        return Features(summary, merge_levels(self.norms, [fine, *maps], vit_maps))

    def train(self, mode: bool = True) -> KPUBackbone:
        """Set the mode of what is trained; what is frozen stays in eval."""
        super().train(mode and self.frozen != 'all')
        if self.norm_eval:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self
