import torch
import torch.nn.functional as F

from kpu_mm.models.layers.feature_pyramid import FeaturePyramid


def test_each_level_is_made_of_the_closest_map():
    torch.manual_seed(0)
    pyramid = FeaturePyramid([6, 10], [8, 14], 4, (0, 1, 2, 3))
    maps = [torch.randn(2, 6, 5, 7), torch.randn(2, 10, 4, 4)]
    got = pyramid(maps, (45, 61))
    coarse = F.interpolate(
        maps[1], (3, 4), mode='bilinear', align_corners=False
    )
    fine = F.interpolate(maps[0], (6, 8), mode='bilinear', align_corners=False)
    for index, source, size in zip(
        range(4),
        (fine, fine, coarse, coarse),
        ((12, 16), (6, 8), (3, 4), (2, 2)),
        strict=True,
    ):
        expected = pyramid[str(index)](source)[..., : size[0], : size[1]]
        assert expected.shape[2:] == size
        torch.testing.assert_close(got[index], expected)


def test_the_finer_of_two_and_only_what_is_asked_for():
    pyramid = FeaturePyramid([3, 5], [8, 32], 4, (2,))
    assert list(pyramid) == ['2']
    (m,) = pyramid(
        [torch.randn(1, 3, 8, 8), torch.randn(1, 5, 2, 2)], (64,) * 2
    )
    assert m.shape == (1, 4, 4, 4)
    assert next(iter(pyramid['2'].parameters())).shape[1] == 3
    assert not FeaturePyramid([3], [16], 4, ())
