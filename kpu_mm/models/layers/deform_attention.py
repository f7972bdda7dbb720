"""Multi-scale deformable attention over the tokens of several maps.

Deformable DETR (https://arxiv.org/abs/2010.04159). The adapter and the
detection heads use it. "Level tokens" are maps of several strides, flattened
row by row and joined one after another: (B, S, C), S = sum of H_l * W_l.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kpu_mm.utils.gpu_operators import operators_fault

from ..encoder import to_map

LevelShapes = Sequence[tuple[int, int]]


def flatten_levels(maps: Sequence[Tensor]) -> Tensor:
    """Maps, each (B, C, H_l, W_l) -> level tokens (B, S, C)."""
    return torch.cat([m.flatten(2).transpose(1, 2) for m in maps], dim=1)


def split_levels(tokens: Tensor, level_shapes: LevelShapes) -> list[Tensor]:
    """Level tokens (B, S, C) -> maps, each (B, C, H_l, W_l)."""
    levels = tokens.split([h * w for h, w in level_shapes], dim=1)
    return list(map(to_map, levels, level_shapes))


def reference_points(level_shapes: LevelShapes, like: Tensor) -> Tensor:
    """Centres of all cells as (x, y) in [0, 1].

    Args:
        level_shapes: (H_l, W_l) of each level.
        like: A tensor that gives device and dtype of the points.

    Returns:
        (S, 2), in the order of level tokens.
    """
    # In half precision the centres of neighbouring cells may coincide.
    dtype = torch.promote_types(like.dtype, torch.float32)
    points = []
    for height, width in level_shapes:
        y = torch.arange(height, dtype=dtype, device=like.device) + 0.5
        x = torch.arange(width, dtype=dtype, device=like.device) + 0.5
        grid_y, grid_x = torch.meshgrid(y / height, x / width, indexing='ij')
        points.append(torch.stack((grid_x, grid_y), -1).flatten(0, 1))
    return torch.cat(points)


# torch.compile would look into it, and split the student's graph at mmcv's calls.
@torch.compiler.assume_constant_result
def has_fused_kernel() -> bool:
    """Whether mmcv's CUDA kernel runs on this process's GPU."""
    return operators_fault((torch.cuda.current_device(),)) is None


# An operator of torch's: the compiler and the rehearsal, which know its fake
# kernel, pass over it. `sides` are the heights and widths of the levels.
@torch.library.custom_op(
    'kpu_mm::deformable_attention',
    mutates_args=(),
    device_types='cuda',
    schema='(Tensor value, SymInt[] sides, Tensor locations, Tensor weights) -> Tensor',
)
def fused_deformable_attention(
    value: Tensor, sides: Sequence[int], locations: Tensor, weights: Tensor
) -> Tensor:
    """Mmcv's kernel: (B, S, M, D) and samples as below -> (B, Q, M * D)."""
    from mmcv.ops.multi_scale_deform_attn import ext_module

    out: Tensor = ext_module.ms_deform_attn_forward(
        value,
        *level_tensors(sides, value.device),
        locations,
        weights,
        # the kernel wants a batch that this divides
        im2col_step=value.shape[0],
    )
    return out


@torch.library.custom_op(
    'kpu_mm::deformable_attention_backward',
    mutates_args=(),
    device_types='cuda',
    schema='(Tensor grad, Tensor value, SymInt[] sides, Tensor locations, Tensor weights) '
    '-> (Tensor, Tensor, Tensor)',
)
def _fused_backward(
    grad: Tensor, value: Tensor, sides: Sequence[int], locations: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of value, locations and weights."""
    from mmcv.ops.multi_scale_deform_attn import ext_module

    inputs = (value, *level_tensors(sides, value.device), locations, weights)
    grads = (torch.zeros_like(value), torch.zeros_like(locations), torch.zeros_like(weights))
    ext_module.ms_deform_attn_backward(
        *inputs, grad.contiguous(), *grads, im2col_step=value.shape[0]
    )
    return grads


@fused_deformable_attention.register_fake
def _(value: Tensor, sides: Sequence[int], locations: Tensor, weights: Tensor) -> Tensor:
    return value.new_empty(value.shape[0], locations.shape[1], value.shape[2] * value.shape[3])


@_fused_backward.register_fake
def _(
    grad: Tensor, value: Tensor, sides: Sequence[int], locations: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(value), torch.empty_like(locations), torch.empty_like(weights)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    value, ctx.sides, locations, weights = inputs
    ctx.save_for_backward(value, locations, weights)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    value, locations, weights = ctx.saved_tensors
    grads = _fused_backward(grad, value, ctx.sides, locations, weights)
    return grads[0], None, grads[1], grads[2]


fused_deformable_attention.register_autograd(_backward, setup_context=_save)


def level_tensors(sides: Sequence[int], device: torch.device) -> tuple[Tensor, Tensor]:
    """Sizes of the levels and their first cells, as the kernel takes them.

    Args:
        sides: H_1, W_1, H_2, ...
        device: A GPU.

    Returns:
        (L, 2) and (L,), int64.
    """
    # From page-locked memory, or the host would wait for the GPU.
    shapes = torch.tensor(sides).view(-1, 2).pin_memory().to(device, non_blocking=True)
    sizes = shapes.prod(1)
    return shapes, sizes.cumsum(0) - sizes


def deformable_attention(
    value: Tensor, level_shapes: LevelShapes, locations: Tensor, weights: Tensor
) -> Tensor:
    """Sample values at fractional locations and sum them by weight.

    Deformable DETR (https://arxiv.org/abs/2010.04159), equation 3. Uses
    mmcv's CUDA kernel where there is one, ``grid_sample`` elsewhere.

    Args:
        value: (B, S, M, D), M heads.
        level_shapes: (H_l, W_l) of each of L levels.
        locations: (B, Q, M, L, P, 2) as (x, y), [0, 1] over the level.
        weights: (B, Q, M, L, P), summing to 1 over (L, P).

    Returns:
        (B, Q, M * D).
    """
    # Half precision is too coarse for locations within a cell.
    if value.dtype in (torch.float16, torch.bfloat16):
        value = value.float()
    locations, weights = locations.to(value.dtype), weights.to(value.dtype)
    if value.is_cuda and has_fused_kernel():
        sides = [side for shape in level_shapes for side in shape]
        samples = (locations.contiguous(), weights.contiguous())
        fused: Tensor = fused_deformable_attention(value.contiguous(), sides, *samples)
        return fused

    batch, _, heads, dims = value.shape
    queries = locations.shape[1]
    # grid_sample takes [-1, 1] over the map.
    grids = 2 * locations - 1
    out = value.new_zeros(batch * heads, dims, queries)
    levels = value.split([h * w for h, w in level_shapes], dim=1)
    for i, (level, shape) in enumerate(zip(levels, level_shapes, strict=True)):
        # (B, HW, M, D) -> (B * M, D, H, W)
        maps = level.permute(0, 2, 3, 1).reshape(-1, dims, *shape)
        # (B, Q, M, P, 2) -> (B * M, Q, P, 2)
        grid = grids[:, :, :, i].transpose(1, 2).flatten(0, 1)
        sampled = F.grid_sample(maps, grid, align_corners=False)
        # (B, Q, M, P) -> (B * M, 1, Q, P)
        weight = weights[:, :, :, i].transpose(1, 2).flatten(0, 1)[:, None]
        out = out + (sampled * weight).sum(-1)
    # (B * M, D, Q) -> (B, Q, M * D)
    return out.view(batch, heads * dims, queries).transpose(1, 2)


class DeformableAttention(nn.Module):
    """Deformable attention without residual.

    Deformable DETR (https://arxiv.org/abs/2010.04159).

    Args:
        embed_dims: Channels of query, value and output.
        num_heads: Heads M; must divide ``embed_dims * value_ratio``.
            Defaults to 8.
        num_levels: Levels L of the value. Defaults to 4.
        num_points: Sampling points P per head and level. Defaults to 4.
        value_ratio: Channels of the projected value over ``embed_dims``.
            Defaults to 1.0.

    Raises:
        ValueError: If the heads do not divide the value's channels.
    """

    def __init__(
        self,
        embed_dims: int,
        num_heads: int = 8,
        num_levels: int = 4,
        num_points: int = 4,
        value_ratio: float = 1.0,
    ) -> None:
        super().__init__()
        value_dims = int(embed_dims * value_ratio)
        if value_dims % num_heads:
            raise ValueError(
                f'{num_heads} heads do not divide the {value_dims} channels '
                f'of the value ({embed_dims} x {value_ratio}); choose '
                '`num_heads` or `value_ratio` so that they do.'
            )
        self.samples = (num_heads, num_levels, num_points)
        count = math.prod(self.samples)
        self.sampling_offsets = nn.Linear(embed_dims, count * 2)
        self.attention_weights = nn.Linear(embed_dims, count)
        self.value_proj = nn.Linear(embed_dims, value_dims)
        self.output_proj = nn.Linear(value_dims, embed_dims)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Head m looks in direction 2 pi m / M, point p at distance p + 1."""
        heads, levels, points = self.samples
        angles = torch.arange(heads) * (2 * math.pi / heads)
        directions = torch.stack((angles.cos(), angles.sin()), -1)
        # On the unit square, so that offsets are whole cells.
        directions = directions / directions.abs().amax(-1, keepdim=True)
        distances = torch.arange(1, points + 1)
        # (M, 1, 1, 2) * (P, 1) -> (M, L, P, 2)
        offsets = directions[:, None, None] * distances[:, None]
        offsets = offsets.expand(-1, levels, -1, -1)
        nn.init.zeros_(self.sampling_offsets.weight)
        with torch.no_grad():
            self.sampling_offsets.bias.copy_(offsets.flatten())
        nn.init.zeros_(self.attention_weights.weight)
        nn.init.zeros_(self.attention_weights.bias)
        for layer in (self.value_proj, self.output_proj):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(
        self, query: Tensor, reference_points: Tensor, value: Tensor, level_shapes: LevelShapes
    ) -> Tensor:
        """Let every query look around its reference point on every level.

        Args:
            query: (B, Q, C).
            reference_points: (Q, 2) as (x, y) in [0, 1].
            value: Level tokens, (B, S, C).
            level_shapes: (H_l, W_l) of each level.

        Returns:
            (B, Q, C).
        """
        heads, levels, points = self.samples
        # (B, S, M * D) -> (B, S, M, D)
        values = self.value_proj(value).unflatten(-1, (heads, -1))
        # (B, Q, M * L * P * 2) -> (B, Q, M, L, P, 2)
        offsets = self.sampling_offsets(query).unflatten(-1, (*self.samples, 2))
        # (B, Q, M * L * P) -> (B, Q, M, L * P): softmax over all samples
        weights = self.attention_weights(query).unflatten(-1, (heads, -1))
        weights = weights.softmax(-1).unflatten(-1, (levels, points))
        # Offsets count cells of their level: divide by (W_l, H_l). Filled
        # one by one, nothing is copied from the host, and torch.export can
        # keep the sizes symbolic.
        sides = [
            reference_points.new_full((), side)
            for height, width in level_shapes
            for side in (width, height)
        ]
        scale = torch.stack(sides).view(-1, 1, 2)  # (L, 1, 2)
        # (Q, 1, 1, 1, 2) + (B, Q, M, L, P, 2)
        locations = reference_points[:, None, None, None] + offsets / scale
        attended = deformable_attention(values, level_shapes, locations, weights)
        out: Tensor = self.output_proj(attended.to(query.dtype))
        return out
