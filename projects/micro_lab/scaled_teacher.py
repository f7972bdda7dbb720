"""A GroundingDINO whose maps are larger by a constant, and nothing else.

The teachers of KPU differ in scale by a factor of 33. Those of the lab differ
by 2; here one of them is scaled without a change of what it knows.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from kpu_mm.models.teachers import GroundingDINOTeacher
from kpu_mm.registry import MODELS


@MODELS.register_module()
class ScaledGroundingDINO(GroundingDINOTeacher):
    """GroundingDINO with scaled maps, undone by its own next layer.

    The detector is the same function: the convolutions that receive the maps
    have weights divided by the scale.

    Args:
        source: Folder of the model.
        scale: The factor. Its detections are equal bit for bit for a power of
            two, up to rounding otherwise.
        with_text: Keep the whole detector. Defaults to False.
    """

    def __init__(self, source: str, scale: float, with_text: bool = False) -> None:
        super().__init__(source, with_text=with_text)
        self.scale = scale
        self.encoder = _ScaledEncoder(self.encoder, scale)
        if self.model is not None:
            model: Any = self.model.model
            model.backbone.conv_encoder = self.encoder
            for projection in model.input_proj_vision:
                projection[0].weight.data /= scale


class _ScaledEncoder(nn.Module):
    """GroundingDINO's image backbone with scaled maps."""

    def __init__(self, encoder: nn.Module, scale: float) -> None:
        super().__init__()
        self.encoder = encoder
        self.scale = scale

    def forward(self, pixel_values: Tensor, pixel_mask: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Each map (B, C, h, w) with its mask (B, h, w).

        Args:
            pixel_values: Images (B, 3, H, W).
            pixel_mask: 1 for a real pixel, (B, H, W).
        """
        return [(m * self.scale, mask) for m, mask in self.encoder(pixel_values, pixel_mask)]
