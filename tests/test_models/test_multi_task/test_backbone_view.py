import pytest
import torch

from kpu_mm.models.multi_task import BackboneView
from kpu_mm.registry import MODELS

IMAGES = torch.randn(2, 3, 64, 96)


def build(kind, source, **kwargs):
    torch.manual_seed(0)
    if kind == 'TeacherBackbone':
        source = dict(
            teacher=dict(
                type='kpu_mm.GroundingDINOTeacher', source=str(source)
            ),
            embed_dims=8,
        )
    else:
        source = dict(sentinel=str(source))
    return MODELS.build(dict(type=f'kpu_mm.{kind}', **source, **kwargs)).eval()


def test_pyramid_and_summary_of_an_adapter(dinov2_dir):
    backbone = build(
        'KPUBackbone', dinov2_dir, out_type='features', inplanes=8
    )
    features = backbone.extract(IMAGES)
    (summary,) = BackboneView(backbone, 'summary')(IMAGES)
    assert torch.equal(summary, features.summary)
    fine, coarse = BackboneView(backbone, out_indices=(0, 3))(IMAGES)
    assert torch.equal(fine, features.maps[0])
    assert torch.equal(coarse, features.maps[3])


def test_pyramid_and_summary_of_a_teacher(grounding_dino_dir):
    """It makes the pyramid of its maps; its summary is their mean."""
    backbone = build('TeacherBackbone', grounding_dino_dir)
    maps = BackboneView(backbone)(IMAGES)
    for m, expected in zip(maps, backbone(IMAGES), strict=True):
        assert torch.equal(m, expected)
    (summary,) = BackboneView(backbone, 'summary')(IMAGES)
    coarsest = backbone.extract(IMAGES).maps[-1]
    assert torch.equal(summary, coarsest.mean((-2, -1)))


def test_pyramid_and_summary_of_a_vit(dinov2_dir):
    backbone = build('ViTBackbone', dinov2_dir)
    (fine,) = BackboneView(backbone, out_indices=(0,))(IMAGES)
    assert torch.equal(fine, backbone(IMAGES)[0])
    (summary,) = BackboneView(backbone, 'summary')(IMAGES)
    assert torch.equal(summary, backbone.extract(IMAGES).summary)


def test_maps_that_a_backbone_gives_itself(dinov2_dir):
    backbone = build('ViTBackbone', dinov2_dir, out_indices=(1, 3))
    (coarse,) = BackboneView(backbone, out_indices=(3,))(IMAGES)
    assert torch.equal(coarse, backbone(IMAGES)[1])
    with pytest.raises(ValueError, match=r'gives no maps \[0\]'):
        BackboneView(backbone, out_indices=(0, 1))


def test_one_map_is_no_pyramid(dinov2_dir):
    backbone = build('ViTBackbone', dinov2_dir, out_type='features')
    with pytest.raises(ValueError, match="only with out_type='pyramid'"):
        BackboneView(backbone)
