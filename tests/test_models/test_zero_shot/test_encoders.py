"""The student and the teacher as encoders in a teacher's space."""

import copy
import shutil

import pytest
import torch
from mmengine.config import Config
from torch import nn

from kpu_mm.analysis.distilled import extract_pairs
from kpu_mm.export import read_student, write_student
from kpu_mm.models import ProjectedBackbone, TeacherEncoder
from kpu_mm.models.teachers import CLIPTeacher
from kpu_mm.registry import MODELS


@pytest.fixture(scope='module')
def run(distilled, tmp_path_factory):
    """A run's folder: its checkpoint and the config beside it."""
    config, checkpoint, _ = distilled
    folder = tmp_path_factory.mktemp('run')
    shutil.copy(checkpoint, folder / 'iter_1.pth')
    Config(dict(model=copy.deepcopy(config))).dump(folder / 'run.py')
    return folder


@pytest.fixture(scope='module')
def checkpoint(run):
    return str(run / 'iter_1.pth')


@pytest.fixture(scope='module')
def images():
    return torch.rand(2, 3, 70, 96) * 255


def test_gives_what_was_compared_with_the_teacher(distilled, checkpoint, images):
    """The distiller's own s2t path, where teacher maps have one level."""
    model = distilled[2]
    backbone = ProjectedBackbone(checkpoint, 'other')
    with torch.no_grad():
        link = model.links['other']
        student, teacher = extract_pairs(model, 'other', images)
        expected = link.to_teacher(student, like=teacher)
        features = backbone.encode(images)
    own = [i for i, (_, level) in enumerate(link.levels.pairs) if level == 2]
    assert torch.equal(features.summary, expected.summary)
    # 70 rows are 4 patches of 16 for the teacher, ceil(70 / 16) here
    assert features.maps[0].shape == (2, 48, 5, 6)
    with torch.no_grad():
        whole = extract_pairs(model, 'other', images[..., :64, :])
        like = link.to_teacher(*whole)
        ours = backbone.encode(images[..., :64, :])
    assert torch.equal(ours.maps[0], like.maps[own[0]])


def test_exported_folder_gives_the_same(distilled, checkpoint, images, tmp_path):
    student = read_student(distilled[0], distilled[1])
    folder = write_student(student, tmp_path / 'out')
    cfg = dict(type='kpu_mm.ProjectedBackbone', teacher='teacher', out_type='summary')
    pair = [MODELS.build(dict(cfg, source=str(s))) for s in (checkpoint, folder)]
    with torch.no_grad():
        summary, other = (b(b.student.normalise(images))[0] for b in pair)
    assert torch.equal(summary, other)
    assert summary.shape == (2, pair[0].summary_channels)


def test_masks_and_padding(checkpoint, images):
    backbone = ProjectedBackbone(checkpoint, 'other')
    mask = torch.ones(2, 70, 96, dtype=torch.bool)
    mask[1, :, 48:] = False
    with torch.no_grad():
        noise = torch.where(mask[:, None], images, torch.rand(1) * 255)
        first, second = (backbone.encode(x, mask) for x in (images, noise))
    assert torch.equal(first.maps[0], second.maps[0])
    assert first.masks[0].shape == (2, 1, 5, 6)
    assert first.masks[0][1, 0, 0].tolist() == [True] * 3 + [False] * 3


def test_state_comes_from_its_source(checkpoint):
    owner = nn.Sequential(ProjectedBackbone(checkpoint, 'other')).train()
    assert not owner.state_dict() and not list(owner.parameters())
    before = owner[0].link.s2t.maps[0][0].weight.clone()
    # weights of the encoder it stands in for are not taken
    owner.load_state_dict({'0.stem.weight': torch.ones(3)}, strict=True)
    assert torch.equal(owner[0].link.s2t.maps[0][0].weight, before)


def test_clear_messages(run, checkpoint, distilled, tmp_path):
    with pytest.raises(ValueError, match=r"no projector.*'clip'; .*'other'"):
        ProjectedBackbone(checkpoint, 'clip')
    with pytest.raises(ValueError, match='out_type'):
        ProjectedBackbone(checkpoint, 'other', out_type='pyramid')
    with pytest.raises(FileNotFoundError, match='does not exist: pass a'):
        ProjectedBackbone(str(tmp_path / 'nowhere.pth'), 'other')
    alone = shutil.copy(checkpoint, tmp_path / 'alone.pth')
    with pytest.raises(FileNotFoundError, match='There is no config'):
        ProjectedBackbone(alone, 'other')
    state = dict(distilled[2].state_dict())
    state['level_record._extra_state'] = torch.zeros(1)
    torch.save(dict(state_dict=state), tmp_path / 'old.pth')
    with pytest.raises(RuntimeError, match='train again'):
        ProjectedBackbone(str(tmp_path / 'old.pth'), 'other', config=str(run / 'run.py'))


def test_projector_sees_student_maps_only(checkpoint, images):
    """A projector that is linear gives the student's maps back."""
    backbone = ProjectedBackbone(checkpoint, 'other')
    # the MLP of the pair that inference uses
    (k,) = backbone.link.closest
    for part in ('summary', f'maps.{k}'):
        backbone.link.s2t.set_submodule(part, nn.Identity())
    with torch.no_grad():
        features = backbone.encode(images)
        own = backbone.student.encode(images)
    assert torch.equal(features.summary, own.summary)
    assert torch.equal(features.maps[0], own.maps[2])


@pytest.fixture
def clip(clip_dir):
    return dict(type='kpu_mm.CLIPTeacher', model=f'local-dir:{clip_dir}')


def test_gives_the_teacher_s_features(clip, clip_dir):
    images = torch.rand(2, 3, 50, 70) * 255
    expected = CLIPTeacher(f'local-dir:{clip_dir}')(images)
    (summary,) = TeacherEncoder(clip, out_type='summary')(images)
    assert torch.equal(summary, expected.summary)
    encoder = TeacherEncoder(clip)
    assert torch.equal(encoder(images)[0], expected.maps[0])
    mask = torch.ones(2, 50, 70, dtype=torch.bool)
    assert encoder.encode(images, mask).masks[0].all()
    assert not encoder.state_dict()


def test_teacher_without_a_summary(clip, grounding_dino_dir):
    with pytest.raises(ValueError, match='out_type'):
        TeacherEncoder(clip, out_type='pyramid')
    dino = dict(type='kpu_mm.GroundingDINOTeacher', source=str(grounding_dino_dir))
    with pytest.raises(ValueError, match='has no summary'):
        TeacherEncoder(dino, out_type='summary')
