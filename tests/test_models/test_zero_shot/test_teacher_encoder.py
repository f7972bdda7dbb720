import pytest
import torch

from kpu_mm.models import TeacherEncoder
from kpu_mm.models.teachers import CLIPTeacher


@pytest.fixture
def cfg(clip_dir):
    return dict(type='kpu_mm.CLIPTeacher', model=f'local-dir:{clip_dir}')


def test_gives_the_teacher_s_features(cfg, clip_dir):
    images = torch.rand(2, 3, 50, 70) * 255
    expected = CLIPTeacher(f'local-dir:{clip_dir}')(images)
    (summary,) = TeacherEncoder(cfg, out_type='summary')(images)
    assert torch.equal(summary, expected.summary)
    encoder = TeacherEncoder(cfg)
    assert torch.equal(encoder(images)[0], expected.maps[0])
    mask = torch.ones(2, 50, 70, dtype=torch.bool)
    assert encoder.encode(images, mask).masks[0].all()
    assert not encoder.state_dict()


def test_clear_messages(cfg, grounding_dino_dir):
    with pytest.raises(ValueError, match='out_type'):
        TeacherEncoder(cfg, out_type='pyramid')
    dino = dict(
        type='kpu_mm.GroundingDINOTeacher', source=str(grounding_dino_dir)
    )
    with pytest.raises(ValueError, match='has no summary'):
        TeacherEncoder(dino, out_type='summary')
