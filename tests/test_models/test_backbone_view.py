import pytest
import torch

from kpu_mm.models.multi_task_model import BackboneView
from kpu_mm.registry import MODELS

IMAGES = torch.randn(2, 3, 64, 96)


def build(kind, source, **kwargs):
    torch.manual_seed(0)
    if kind == 'TeacherBackbone':
        source = dict(
            teacher=dict(type='kpu_mm.GroundingDINOTeacher', source=str(source)), embed_dims=8
        )
    else:
        source = dict(sentinel=str(source))
    return MODELS.build(dict(type=f'kpu_mm.{kind}', **source, **kwargs)).eval()


def test_pyramid_and_summary_of_an_adapter(dinov2_dir):
    backbone = build('KPUBackbone', dinov2_dir, out_type='features', inplanes=8)
    features = backbone.extract(IMAGES)
    (summary,) = BackboneView(backbone, 'summary')(IMAGES)
    assert torch.equal(summary, features.summary)
    fine, coarse = BackboneView(backbone, out_indices=(0, 3))(IMAGES)
    assert torch.equal(fine, features.maps[0])
    assert torch.equal(coarse, features.maps[3])


def test_pyramid_and_summary_of_a_teacher(grounding_dino_dir):
    """The pyramid is the task's; the summary is the mean of a map."""
    backbone = build('TeacherBackbone', grounding_dino_dir, out_type='features')
    alone = build('TeacherBackbone', grounding_dino_dir)
    view = BackboneView(backbone)
    view.levels.load_state_dict(alone.levels.state_dict())
    for m, expected in zip(view(IMAGES), alone(IMAGES), strict=True):
        assert torch.equal(m, expected)
    (summary,) = BackboneView(backbone, 'summary')(IMAGES)
    coarsest = backbone.extract(IMAGES).maps[-1]
    assert torch.equal(summary, coarsest.mean((-2, -1)))


def test_pyramid_and_summary_of_a_vit(dinov2_dir):
    backbone = build('ViTBackbone', dinov2_dir, out_type='features')
    alone = build('ViTBackbone', dinov2_dir, out_indices=(0, 2))
    view = BackboneView(backbone, out_indices=(0, 2))
    view.levels.load_state_dict(alone.levels.state_dict())
    for m, expected in zip(view(IMAGES), alone(IMAGES), strict=True):
        assert torch.equal(m, expected)
    (summary,) = BackboneView(backbone, 'summary')(IMAGES)
    assert torch.equal(summary, backbone.extract(IMAGES).summary)


@pytest.mark.parametrize('kind', ['ViTBackbone', 'TeacherBackbone'])
def test_tasks_learn_pyramids_of_their_own(kind, dinov2_dir, grounding_dino_dir):
    """A task's gradients do not reach what another task learns."""
    source = dinov2_dir if kind == 'ViTBackbone' else grounding_dino_dir
    backbone = build(kind, source, out_type='features')
    views = BackboneView(backbone), BackboneView(backbone)
    sum(m.square().mean() for m in views[0](IMAGES)).backward()
    assert all(p.grad is not None for p in views[0].parameters())
    others = [*views[1].parameters(), *backbone.parameters()]
    assert others and all(p.grad is None for p in others)


def test_a_pyramid_is_not_learnt_together(dinov2_dir):
    backbone = build('ViTBackbone', dinov2_dir)
    with pytest.raises(ValueError, match="share it with out_type='features'"):
        BackboneView(backbone)


def test_maps_that_an_adapter_gives(dinov2_dir):
    backbone = build('KPUBackbone', dinov2_dir, out_indices=(1, 3), inplanes=8)
    (coarse,) = BackboneView(backbone, out_indices=(3,))(IMAGES)
    assert torch.equal(coarse, backbone(IMAGES)[1])
    with pytest.raises(ValueError, match=r'gives no maps \[0\]'):
        BackboneView(backbone, out_indices=(0, 1))
