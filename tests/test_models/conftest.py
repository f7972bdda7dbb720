"""A small distiller of two teachers."""

import pytest


@pytest.fixture
def cfg(dinov2_dir, grounding_dino_dir):
    return dict(
        student=dict(
            type='kpu_mm.KPUBackbone',
            sentinel=str(dinov2_dir),
            inplanes=8,
            norm_cfg=dict(type='GN', num_groups=4),
        ),
        teachers=dict(
            dino=dict(type='kpu_mm.DINOTeacher', source=str(dinov2_dir)),
            gdino=dict(type='kpu_mm.GroundingDINOTeacher', source=str(grounding_dino_dir)),
        ),
        projector=dict(type='kpu_mm.MLPProjector', hidden=16),
    )
