import pytest
import torch

from kpu_mm.models.teachers import GroundingDINOTeacher, UnpaddedTeacher
from kpu_mm.models.teachers.unpadded_teacher import each_alone
from kpu_mm.registry import MODELS

SIZES = ((64, 100), (96, 70), (96, 100), (64, 100))


@pytest.fixture
def config(grounding_dino_dir):
    return dict(
        type='kpu_mm.GroundingDINOTeacher', source=str(grounding_dino_dir)
    )


@pytest.fixture
def images():
    return [torch.randint(256, (3, *s), dtype=torch.uint8) for s in SIZES]


@pytest.fixture
def padded(images):
    batch = torch.zeros(4, 3, 96, 100, dtype=torch.uint8)
    mask = torch.zeros(4, 96, 100, dtype=torch.bool)
    for i, image in enumerate(images):
        h, w = image.shape[1:]
        batch[i, :, :h, :w] = image
        mask[i, :h, :w] = True
    return batch, mask


def test_padding_does_not_matter(config, images, padded):
    teacher, bare = UnpaddedTeacher(config), MODELS.build(config)
    got = teacher(*padded)
    assert got.summary is None
    whole = bare(*padded)
    assert [m.shape for m in got.maps] == [m.shape for m in whole.maps]
    changed = 0.0
    for i, image in enumerate(images):
        alone = bare(image[None])
        for level, own in enumerate(alone.maps):
            h, w = own.shape[-2:]
            m, mask = got.maps[level][i], got.masks[level][i, 0]
            # rounding alone, as batches of another size round otherwise
            torch.testing.assert_close(m[:, :h, :w], own[0])
            assert mask[:h, :w].all() and mask.sum() == h * w
            assert not m[:, ~mask].any()
            rest = whole.maps[level][i, :, :h, :w] - own[0]
            changed = max(changed, rest.abs().max().item())
    assert changed > 0.01  # what the padding does to the bare teacher


def test_without_padding_nothing_changes(config):
    teacher, bare = (
        UnpaddedTeacher(config),
        GroundingDINOTeacher(config['source']),
    )
    images = torch.randint(256, (2, 3, 64, 96), dtype=torch.uint8)
    got, expected = teacher(images), bare(images)
    assert got.masks is None
    assert all(map(torch.equal, got.maps, expected.maps))
    for key in ('summary_channels', 'channels', 'strides', 'size_divisor'):
        assert getattr(teacher, key) == getattr(bare, key)
    assert torch.equal(teacher.mean, bare.mean)


def test_images_of_one_size_are_seen_together(config, images):
    bare, sizes = MODELS.build(config), []

    def teacher(batch):
        sizes.append(tuple(batch.shape))
        return bare(batch)

    features = each_alone(teacher, images)
    assert sizes == [(2, 3, 64, 100), (1, 3, 96, 70), (1, 3, 96, 100)]
    for image, found in zip(images, features, strict=True):
        for a, b in zip(found.maps, bare(image[None]).maps, strict=True):
            torch.testing.assert_close(a, b)


def test_teachers_of_one_size_refuse_padding(clip_dir, padded):
    teacher = UnpaddedTeacher(
        dict(type='kpu_mm.CLIPTeacher', model=f'local-dir:{clip_dir}')
    )
    with pytest.raises(ValueError, match=r'stretches to \(64, 64\)'):
        teacher(*padded)
    assert teacher(padded[0]).summary.shape == (4, 32)
