"""Students without an adapter, or with another sentinel, are exported, too."""

import pytest
import torch
from transformers import AutoModel

from kpu_mm.analysis.distilled import extract_pairs
from kpu_mm.export import read_student, write_student
from kpu_mm.models import KPUDistiller
from kpu_mm.models.backbones import KPUBackbone, load_exported
from kpu_mm.models.student import Student, load_student
from tests.small_vits import small_vit


@pytest.fixture(scope='module')
def trained(tmp_path_factory, dinov2_dir, grounding_dino_dir):
    """Config and checkpoint of Base_a's recipe, away from initial values."""
    torch.manual_seed(0)
    config = dict(
        student=dict(type='kpu_mm.ViTBackbone', sentinel=str(dinov2_dir), frozen='none'),
        teachers=dict(
            dino=dict(type='kpu_mm.DINOTeacher', source=str(dinov2_dir)),
            gdino=dict(type='kpu_mm.GroundingDINOTeacher', source=str(grounding_dino_dir)),
        ),
        terms=dict(s2t=1.0),
        projector=dict(type='kpu_mm.MLPProjector', hidden=24),
    )
    model = KPUDistiller(**config)
    for p in model.parameters():
        p.data += 0.1 * torch.randn_like(p)
    path = tmp_path_factory.mktemp('trained') / 'iter_1.pth'
    torch.save(dict(state_dict=model.state_dict()), path)
    return config, path, model.eval().requires_grad_(False)


def assert_same(got, expected):
    torch.testing.assert_close(got.summary, expected.summary)
    for a, b in zip(got.maps, expected.maps, strict=True):
        torch.testing.assert_close(a, b)


@pytest.fixture(scope='module')
def folder(trained, tmp_path_factory):
    student = read_student(trained[0], trained[1])
    return write_student(student, tmp_path_factory.mktemp('out') / 'student')


def test_folder_is_the_same_student(trained, folder):
    model = trained[2]
    images = torch.randint(256, (2, 3, 56, 70)).byte()
    expected = model.student.encode(images)
    for backbone in (load_exported(folder), load_student(folder).backbone):
        backbone.requires_grad_(False)
        assert_same(backbone.encode(images), expected)
    link = load_student(folder).link('gdino')
    features, teacher = extract_pairs(model, 'gdino', images)
    got = link.infer(expected, (56, 70))
    assert got.summary is None
    for a, b, m in zip(
        got.maps, model.links['gdino'].s2t(features).maps, teacher.maps, strict=True
    ):
        assert a.shape == m.shape
        if a.shape == b.shape:
            torch.testing.assert_close(a, b)


def test_the_sentinel_is_a_model_of_transformers(trained, folder):
    vit = AutoModel.from_pretrained(folder / 'sentinel').eval()
    images = torch.randn(2, 3, 56, 70)
    with torch.no_grad():
        tokens = vit(images).last_hidden_state
    expected = trained[2].student.extract(images)
    torch.testing.assert_close(tokens[:, 0], expected.summary)
    assert "type='kpu_mm.ViTBackbone'" in (folder / 'README.md').read_text()


def test_a_pyramid_is_no_part_of_a_student(trained, folder, tmp_path):
    detector = load_exported(folder, out_type='pyramid')
    assert any(n.startswith('levels.') for n in detector.state_dict())
    state = {f'backbone.{k}': v for k, v in detector.state_dict().items()}
    torch.save(dict(state_dict=state), tmp_path / 'detector.pth')
    config = dict(trained[0]['student'], sentinel=str(folder / 'sentinel'))
    student = read_student(dict(type='mmdet.DINO', backbone=config), tmp_path / 'detector.pth')
    images = torch.randn(1, 3, 42, 56)
    with torch.no_grad():
        assert_same(student.backbone.extract(images), trained[2].student.extract(images))


@pytest.mark.slow
def test_graphs(trained, tmp_path):
    """Each file is compared with the student before it is left there."""
    student = read_student(trained[0], trained[1])
    folder = write_student(student, tmp_path / 'out', ['onnx', 'program'], ['gdino', 'dino'])
    assert {'student.onnx', 'student.pt2'} < {p.name for p in folder.iterdir()}


@pytest.mark.parametrize('family', ['SigLIP 2', 'EVA-02', 'RADIO', 'BEiT', 'clip_vision_model'])
def test_any_sentinel_comes_back(family, tmp_path):
    """Its own mean and deviation, too."""
    arguments = dict(num_interactions=3, inplanes=4)
    backbone = KPUBackbone(small_vit(family), frozen='none', **arguments).eval()
    for p in backbone.parameters():
        p.data += 0.1 * torch.randn_like(p)
    folder = write_student(Student(backbone, arguments, {}, {}), tmp_path / 'student')
    images = torch.randint(256, (2, 3, 224, 224)).byte()
    with torch.no_grad():
        expected = backbone.encode(images)
        assert_same(load_exported(folder).encode(images), expected)
        model = AutoModel.from_pretrained(str(folder))
        got = model(backbone.normalise(images)).pooler_output
        torch.testing.assert_close(got, expected.summary)
