import pytest
import torch
import torch.nn.functional as F
from torch import nn

from kpu_mm.models.level_map import LevelMap
from kpu_mm.models.normalizers import PHISNormalizer
from kpu_mm.models.projectors import MLPProjector
from kpu_mm.models.teacher_link import TeacherLink
from kpu_mm.structures import Features, Moments

STRIDES = (4, 8, 16, 32)
LEVELS = LevelMap((8, 16), ((0, 0), (0, 1), (1, 2)))


def test_resizes_to_the_teacher_s_grid_and_projects():
    """By hand: stride 16 as it is, stride 14 resized before its MLP."""
    torch.manual_seed(0)
    projector = MLPProjector(6, 5, (6, 6, 6), (4, 4, 3), hidden=7)
    levels = LevelMap((16, 14), ((0, 1), (0, 2), (1, 2)))
    link = TeacherLink(levels, STRIDES, dict(s2t=projector))
    assert link.summary_channels == 5 and link.channels == (4, 3)
    sizes = [(-(-50 // s), -(-75 // s)) for s in STRIDES]
    maps = tuple(torch.randn(2, 6, *size) for size in sizes)
    features = Features(torch.randn(2, 6), maps)
    with torch.no_grad():
        got = link.infer(features, (50, 75))
        resized = F.interpolate(maps[2], (4, 6), mode='bilinear')
        for m, source, mlp in zip(got.maps, (maps[2], resized), projector.maps[1:], strict=True):
            expected = mlp(source.movedim(1, -1)).movedim(-1, 1)
            torch.testing.assert_close(m, expected)
        assert torch.equal(got.summary, projector.summary(features.summary))


def test_a_much_coarser_map_is_averaged_in_training_and_inference():
    projector = MLPProjector(None, None, (6,), (4,), hidden=7)
    link = TeacherLink(LevelMap((64,), ((0, 0),)), (16,), dict(s2t=projector))
    m = torch.randn(1, 6, 9, 4)  # 136 x 64 pixels
    pooled = F.avg_pool2d(m, 4, ceil_mode=True)
    expected = projector.maps[0](pooled.movedim(1, -1)).movedim(-1, 1)
    student, like = Features(None, (m,)), Features(None, (torch.zeros(1, 4, 3, 1),))
    torch.testing.assert_close(link.infer(student, (136, 64)).maps[0], expected)
    torch.testing.assert_close(link.to_teacher(student, like).maps[0], expected)


def build(levels=LEVELS, **projectors):
    return TeacherLink(levels, STRIDES, projectors)


def test_pairs_of_t2s_and_rec():
    assert build(s2t=nn.Identity()).unified == (1, 2)
    assert build(t2s=nn.Identity()).unified == (0, 1, 2)


def test_maps_are_laid_out_pair_by_pair():
    student = Features(None, tuple(torch.full((1,), i) for i in range(4)))
    teacher = Features(None, tuple(torch.full((1,), 10 + i) for i in range(2)))
    x, x_t = build().pair(student, teacher)
    assert [int(m) for m in x.maps] == [0, 1, 2]
    assert [int(m) for m in x_t.maps] == [10, 10, 11]
    x, x_t = build(s2t=nn.Identity()).pair_unified(x, x_t)
    assert [int(m) for m in x.maps] == [1, 2]
    assert [int(m) for m in x_t.maps] == [10, 11]


def test_inference_undoes_the_normaliser():
    torch.manual_seed(0)
    projector = MLPProjector(6, 5, (6, 6, 6), (4, 4, 3), hidden=7)
    normalizer = PHISNormalizer(5, (4, 3))
    normalizer.fit(
        {
            name: Moments.of(torch.randn(50, c) * torch.arange(1, c + 1))
            for name, c in {'summary': 5, 'map 0': 4, 'map 1': 3}.items()
        }
    )
    sizes = [(64 // s, 96 // s) for s in STRIDES]
    maps = tuple(torch.randn(2, 6, *size) for size in sizes)
    student = Features(torch.randn(2, 6), maps)
    plain = TeacherLink(LEVELS, STRIDES, dict(s2t=projector))
    link = TeacherLink(LEVELS, STRIDES, dict(s2t=projector), normalizer)
    with torch.no_grad():
        expected = normalizer.invert(plain.infer(student, (64, 96)))
        own = link.infer(student, (64, 96))
    for (name, a, _), (_, b, _) in zip(own.outputs(), expected.outputs(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4, msg=name)


def test_state_tells_the_levels(tmp_path):
    torch.save(build().state_dict(), tmp_path / 'state.pth')
    state = torch.load(tmp_path / 'state.pth', weights_only=True)
    assert LevelMap.from_tensor(state['_extra_state']) == LEVELS
    build().load_state_dict(state, strict=True)


def test_other_levels_of_the_same_teacher():
    other = LevelMap((16,), ((0, 3),))
    with pytest.raises(RuntimeError, match=r'connect.*\(0, 0\), \(0, 1\)'):
        build(other).load_state_dict(build().state_dict())
