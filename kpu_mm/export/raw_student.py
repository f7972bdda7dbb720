"""RawStudent: the graph that is exported, from raw images to named tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from torch import Tensor, nn

from kpu_mm.models.backbones.sentinel_backbone import SentinelBackbone
from kpu_mm.models.teacher_link import TeacherLink


class RawStudent(nn.Module):
    """Raw images in; summary, maps and teachers' features out, by name.

    Args:
        backbone: The student, in eval mode.
        links: By teacher, the link into its space.
    """

    def __init__(
        self, backbone: SentinelBackbone, links: Mapping[str, TeacherLink]
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.links = nn.ModuleDict(links)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Normalise, extract and project.

        Args:
            images: RGB in [0, 255], float32, (B, 3, H, W).

        Returns:
            ``summary`` (B, C) and ``map_s`` (B, C, ceil(H / s), ceil(W / s))
            at strides s of 4, 8, 16 and 32, or a ViT's own, for which sizes
            are rounded to the nearest; for each link ``NAME_summary``
            (B, D), if the teacher has one, and ``NAME_map_i`` for its maps
            from the first on, (B, C_i, ceil(H / s_i), ceil(W / s_i)) at the
            teacher's strides s_i.
        """
        size = (images.shape[-2], images.shape[-1])
        features = self.backbone.encode(images)
        assert features.summary is not None
        named = dict(summary=features.summary)
        for stride, m in zip(
            self.backbone.strides, features.maps, strict=True
        ):
            named[f'map_{stride}'] = m
        for name, link in self.links.items():
            projected = cast(TeacherLink, link).infer(features, size)
            if projected.summary is not None:
                named[f'{name}_summary'] = projected.summary
            for i, m in enumerate(projected.maps):
                named[f'{name}_map_{i}'] = m
        return named
