import torch
import torch.nn.functional as F

from kpu_mm.models.level_record import TeacherLevels
from kpu_mm.models.projectors import MLPProjector, TeacherHead
from kpu_mm.models.projectors.teacher_head import closest_pairs
from kpu_mm.structures import Features

STRIDES = (4, 8, 16, 32)


def test_takes_the_level_of_the_closest_stride():
    levels = TeacherLevels((8, 16), ((0, 0), (0, 1), (1, 2)))
    assert closest_pairs(levels, STRIDES) == [(1, 1), (2, 2)]
    alone = TeacherLevels((14,), ((0, 0), (0, 1), (0, 2), (0, 3)))
    assert closest_pairs(alone, STRIDES) == [(2, 2)]


def test_resizes_to_the_teacher_s_grid_and_projects():
    """By hand: stride 16 as it is, stride 14 resized before its MLP."""
    torch.manual_seed(0)
    projector = MLPProjector(6, 5, (6, 6, 6), (4, 4, 3), hidden=7)
    levels = TeacherLevels((16, 14), ((0, 1), (0, 2), (1, 2)))
    head = TeacherHead(projector, levels, STRIDES)
    assert head.summary_channels == 5 and head.channels == (4, 3)
    sizes = [(-(-50 // s), -(-75 // s)) for s in STRIDES]
    maps = tuple(torch.randn(2, 6, *size) for size in sizes)
    features = Features(torch.randn(2, 6), maps)
    with torch.no_grad():
        got = head(features, (50, 75))
        resized = F.interpolate(maps[2], (4, 6), mode='bilinear')
        for m, source, mlp in zip(
            got.maps, (maps[2], resized), projector.maps[1:], strict=True
        ):
            expected = mlp(source.movedim(1, -1)).movedim(-1, 1)
            torch.testing.assert_close(m, expected)
        assert torch.equal(got.summary, projector.summary(features.summary))
