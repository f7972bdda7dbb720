import pytest
import torch

from kpu_mm.export.graphs import RawStudent
from kpu_mm.models.backbones import KPUBackbone
from kpu_mm.models.level_map import LevelMap
from kpu_mm.models.projectors import MLPProjector
from kpu_mm.models.teacher_link import TeacherLink

SENTINELS = {
    # 5 x 5 positions: images of 64 and 70 pixels meet the shortcut of
    # transformers for the size of pre-training
    'dinov2': dict(image_size=70, patch_size=14),
    'dinov2_with_registers': dict(image_size=70, patch_size=14, num_register_tokens=2),
    'dinov3_vit': dict(image_size=64, patch_size=16, intermediate_size=48),
}


@pytest.fixture(scope='session')
def raw_student():
    """Build a student of a family as small as it can be, with one head."""
    return build


@torch.no_grad()
def build(family):
    torch.manual_seed(0)
    sentinel = dict(
        model_type=family,
        hidden_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        **SENTINELS[family],
    )
    backbone = KPUBackbone(
        sentinel, num_interactions=1, num_extra_extractors=0, inplanes=4, num_points=1
    )
    # a teacher at stride 14, as CLIP L/14 is
    projector = MLPProjector(24, 5, (24,), (6,), hidden=8)
    levels = LevelMap((14,), ((0, 2),))
    link = TeacherLink(levels, backbone.strides, dict(s2t=projector))
    model = RawStudent(backbone, dict(clip=link))
    for p in model.parameters():
        p += 0.1 * torch.randn_like(p)
    return model.eval().requires_grad_(False)
