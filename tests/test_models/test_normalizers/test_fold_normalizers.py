import pytest
import torch

from kpu_mm.models import KPUDistiller
from kpu_mm.models.normalizers import fit_normalizers
from kpu_mm.models.student import load_student, read_student
from kpu_mm.structures import Features


@pytest.fixture(scope='module')
def build(dinov2_dir, grounding_dino_dir):
    """Config and distiller; gdino's first map meets two student levels."""

    def make(**kwargs):
        torch.manual_seed(0)
        config = dict(
            student=dict(type='kpu_mm.KPUBackbone', sentinel=str(dinov2_dir), inplanes=8),
            teachers=dict(
                dino=dict(type='kpu_mm.DINOTeacher', source=str(dinov2_dir)),
                gdino=dict(type='kpu_mm.GroundingDINOTeacher', source=str(grounding_dino_dir)),
            ),
            projector=dict(type='kpu_mm.MLPProjector', hidden=16),
            **kwargs,
        )
        model = KPUDistiller(**config).eval()
        images = torch.randint(256, (64, 3, 64, 64)).byte()
        batch = dict(images=images, mask=None)
        fit_normalizers(model, dict(dino=[batch], gdino=[batch]), 64)
        return dict(config, type='kpu_mm.KPUDistiller'), model

    return make


@pytest.fixture(scope='module')
def images():
    return torch.randint(256, (2, 3, 64, 96)).byte()


def in_own_space(model, name, projected):
    """A projector's normalised output, taken back map by map."""
    normalizer = model.links[name].normalizer
    summary = projected.summary
    if summary is not None and normalizer.summary is not None:
        summary = normalizer.summary.invert(summary)
    maps = tuple(
        normalizer.maps[i].invert(m.movedim(1, -1)).movedim(-1, 1)
        for m, (i, _) in zip(projected.maps, model.links[name].levels.pairs, strict=True)
    )
    return Features(summary, maps)


@torch.no_grad()
def check(model, images, links):
    student = model.student.encode(images)
    for name, link in links.items():
        teacher = model.teachers[name].encode(images)
        x, _ = model.links[name].pair(student, teacher)
        expected = in_own_space(model, name, model.links[name].s2t(x))
        for (output, a, _), (_, b, _) in zip(
            link.s2t(x).outputs(), expected.outputs(), strict=True
        ):
            difference = (a - b).abs().max() / b.abs().max()
            assert difference < 1e-5, (name, output)


@pytest.mark.parametrize('normalizer', ['GlobalStandard', 'Standard', 'PCA', 'ZCA', 'HCA', 'PHIS'])
def test_students_give_features_of_the_teacher_s_own_space(build, images, tmp_path, normalizer):
    config, model = build(normalizer=dict(type=f'kpu_mm.{normalizer}Normalizer'))
    pairs = model.links['gdino'].levels.pairs
    assert [i for i, _ in pairs].count(0) == 2
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'a.pth')
    check(model, images, read_student(config, tmp_path / 'a.pth').links)


def test_moving_averages_are_folded(build, images, tmp_path):
    config, model = build(normalizer=dict(type='kpu_mm.MovingNormalizer', updates=9))
    batch = dict(images=images, mask=None)
    for _ in range(2):
        model.train()(dict(dino=batch, gdino=batch))
    assert (model.links['gdino'].normalizer.maps[0].inverse != 1).all()
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'a.pth')
    check(model.eval(), images, read_student(config, tmp_path / 'a.pth').links)


def test_summary_that_was_not_normalised(build, images, tmp_path):
    config, model = build(normalizer=dict(type='kpu_mm.PHISNormalizer', summary=False))
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'a.pth')
    student = read_student(config, tmp_path / 'a.pth')
    check(model, images, student.links)
    ours, theirs = student.links['dino'].s2t, model.links['dino'].s2t
    assert torch.equal(ours.summary[-1].weight, theirs.summary[-1].weight)


def test_exported_folder(build, images, tmp_path):
    from kpu_mm.export import write_student

    config, model = build(normalizer=dict(type='kpu_mm.PHISNormalizer'))
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'a.pth')
    student = read_student(config, tmp_path / 'a.pth')
    folder = write_student(student, tmp_path / 'student')
    check(model, images, load_student(folder).links)


def test_without_s2t(build, tmp_path):
    config, model = build(normalizer=dict(type='kpu_mm.PHISNormalizer'), terms=dict(t2s=1.0))
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'a.pth')
    assert not read_student(config, tmp_path / 'a.pth').links
