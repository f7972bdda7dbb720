import pytest
import torch
import torch.nn.functional as F

from kpu_mm.models.teachers import BaseTeacher, DINOTeacher, MosaicTeacher
from kpu_mm.models.teachers.mosaic_teacher import tile, untile
from kpu_mm.structures import Features


class PixelTeacher(BaseTeacher):
    """Its maps are its normalised input, averaged over cells."""

    def __init__(self, strides=(2, 4)):
        super().__init__((0.0,) * 3, (1.0,) * 3)
        self.seen = None
        self.cells = tuple(strides)
        self.probe(16)

    def extract(self, images, mask):
        self.seen = images, mask
        maps = tuple(F.avg_pool2d(images, s) for s in self.cells)
        return Features(images.mean((2, 3)), maps)


def build(side=24, **kwargs):
    return MosaicTeacher(dict(type=PixelTeacher, **kwargs), side)


def images_of(count, height, width):
    return torch.randint(1, 256, (count, 3, height, width)).byte()


def test_every_pixel_has_its_place():
    """Five images of 8 x 4 in tiles of 12 x 12: 2 x 2 of them in a mosaic."""
    torch.manual_seed(0)
    teacher, images = build(), images_of(5, 8, 4)
    assert teacher.per_row(8, 4) == 3 and teacher.per_row(12, 8) == 2
    images = F.pad(images, (0, 0, 0, 4))[:, :, :12]  # 12 x 4
    teacher(images)
    seen, valid = teacher.teacher.seen
    assert seen.shape == (2, 3, 24, 24)
    expected, real = torch.zeros(2, 3, 24, 24), torch.zeros(2, 24, 24)
    for i in range(5):
        mosaic, place = divmod(i, 4)
        y, x = 12 * (place // 2), 12 * (place % 2)
        for row in range(12):
            for column in range(4):
                expected[mosaic, :, y + row, x + column] = images[i, :, row, column] / 255
                real[mosaic, y + row, x + column] = 1
    assert torch.equal(seen, expected)
    assert torch.equal(valid, real.bool())


@pytest.mark.parametrize('size', [(8, 8), (8, 4), (12, 12), (4, 8), (24, 24)])
def test_features_of_a_tile_are_those_of_its_image(size):
    """A teacher that looks at single cells says the same of an image alone."""
    torch.manual_seed(1)
    images = images_of(7, *size)
    teacher = build()
    got = teacher(images)
    alone = PixelTeacher()(images)
    assert got.summary is None and got.masks is None
    for a, b in zip(got.maps, alone.maps, strict=True):
        torch.testing.assert_close(a, b)


def test_masks_are_those_of_the_images():
    torch.manual_seed(2)
    images = images_of(3, 8, 8)
    mask = torch.ones(3, 8, 8, dtype=torch.bool)
    mask[1, 4:], mask[2, :, 2:] = False, False
    got, alone = build()(images, mask), PixelTeacher()(images, mask)
    for kind in ('maps', 'masks'):
        for a, b in zip(getattr(got, kind), getattr(alone, kind), strict=True):
            torch.testing.assert_close(a, b)


def test_a_full_mosaic_has_no_mask():
    teacher = build()
    teacher(images_of(8, 12, 12))
    assert teacher.teacher.seen[1] is None
    teacher(images_of(7, 12, 12))
    assert teacher.teacher.seen[1] is not None


@pytest.mark.parametrize(('size', 'per_row', 'padding'), [(256, 4, 0), (432, 2, 80), (1024, 1, 0)])
def test_sizes_of_the_paper(size, per_row, padding):
    teacher = build(side=1024, strides=(16,))
    assert teacher.per_row(size, size) == per_row
    assert 1024 // per_row - size == padding


def test_tile_and_back():
    torch.manual_seed(3)
    images = torch.randn(9, 2, 5, 5)
    assert torch.equal(untile(tile(images, 3, 5), 3), images)
    # not two equal rows by chance: image 4 of 9 is in the middle
    assert torch.equal(tile(images, 3, 5)[0, :, 5:10, 5:10], images[4])


def test_a_vit_sees_one_image(dinov2_dir):
    """Attention mixes the tiles, so one call holds k^2 of the images."""
    inner = dict(type='kpu_mm.DINOTeacher', source=str(dinov2_dir))
    teacher = MosaicTeacher(inner, side=112)
    images = images_of(4, 56, 56)
    mosaic = torch.cat([torch.cat([images[0], images[1]], 2), torch.cat([*images[2:]], 2)], 1)
    whole = DINOTeacher(str(dinov2_dir))(mosaic[None]).maps[0][0]
    (m,) = teacher(images).maps
    for i, (y, x) in enumerate([(0, 0), (0, 4), (4, 0), (4, 4)]):
        torch.testing.assert_close(m[i], whole[:, y : y + 4, x : x + 4])
    assert teacher.channels == (48,) and teacher.strides == (14,)
    assert not any(p.requires_grad for p in teacher.parameters())


@pytest.mark.parametrize('size', [(28, 8), (6, 8), (8, 10)])
def test_refuses_images(size):
    with pytest.raises(ValueError, match='do not fit a mosaic'):
        build()(images_of(1, *size))


def test_refuses_teachers(dinov2_dir):
    inner = dict(type='kpu_mm.DINOTeacher', source=str(dinov2_dir))
    with pytest.raises(ValueError, match=r'side=100.*\(98, 98\)'):
        MosaicTeacher(inner, side=100)
    with pytest.raises(ValueError, match='which is no teacher'):
        MosaicTeacher(dict(type='kpu_mm.KPUBackbone'))
