import json
import shutil

import pytest
import torch
from transformers import Dinov2Model, Dinov2WithRegistersModel, DINOv3ViTModel

from kpu_mm.models.teachers import DINOTeacher
from kpu_mm.registry import MODELS

FAMILY = [
    ('dinov2_dir', Dinov2Model, 14, 1),
    ('dinov2_reg_dir', Dinov2WithRegistersModel, 14, 5),
    ('dinov3_dir', DINOv3ViTModel, 16, 5),
]


@pytest.fixture
def images():
    return torch.randint(0, 256, (2, 3, 112, 112), dtype=torch.uint8)


def normalized(images):
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    return (images.float() / 255 - mean) / std


@pytest.mark.parametrize('fixture,cls,patch,prefix', FAMILY)
def test_equals_transformers(fixture, cls, patch, prefix, images, request, tmp_path):
    folder = request.getfixturevalue(fixture)
    teacher = DINOTeacher(str(folder))
    images = images[..., :84] if patch == 14 else images[..., :96]
    features = teacher(images)
    with torch.no_grad():
        out = cls.from_pretrained(folder)(normalized(images))
    assert torch.equal(features.summary, out.pooler_output)
    grid = (112 // patch, images.shape[-1] // patch)
    assert features.maps[0].shape == (2, 48, *grid)
    tokens = features.maps[0].flatten(2).transpose(1, 2)
    assert torch.equal(tokens, out.last_hidden_state[:, prefix:])
    assert features.masks is None
    assert teacher.summary_channels == 48
    assert teacher.channels == (48,)
    assert teacher.strides == (patch,)


@pytest.mark.parametrize('fixture,cls,patch,prefix', FAMILY)
def test_resizes_instead_of_cropping(fixture, cls, patch, prefix, request):
    teacher = DINOTeacher(str(request.getfixturevalue(fixture)))
    image = torch.rand(1, 3, patch * 5 + 5, patch * 6 - 4) * 255
    changed = image.clone()
    changed[..., -3:, :] = 255 - changed[..., -3:, :]
    features, other = teacher(image), teacher(changed)
    assert features.maps[0].shape[-2:] == (5, 6)
    # what lies beyond the last whole patch is seen
    assert not torch.equal(features.summary, other.summary)


def test_released_defaults_are_not_assumed(dinov2_dir, images):
    teacher = MODELS.build(
        dict(
            type='kpu_mm.DINOTeacher',
            source=str(dinov2_dir),
            mean=(0.5, 0.5, 0.5),
            std=(0.25, 0.25, 0.25),
            resolution=(56, 70),
        )
    )
    prepared, _ = teacher.prepare(images)
    assert prepared.shape == (2, 3, 56, 70)
    assert prepared.min() >= -2
    assert prepared.max() <= 2
    assert teacher(images).maps[0].shape == (2, 48, 4, 5)


def test_mask_reaches_the_map(dinov2_dir, images):
    mask = torch.zeros(2, 112, 112, dtype=torch.bool)
    mask[0], mask[1, :56, :28] = True, True
    teacher = DINOTeacher(str(dinov2_dir))
    features = teacher(images, mask)
    expected = torch.zeros(8, 8, dtype=torch.bool)
    expected[:4, :2] = True
    assert features.masks[0].shape == (2, 1, 8, 8)
    assert features.masks[0][0].all()
    assert torch.equal(features.masks[0][1, 0], expected)
    # what the padding holds does not matter
    noise = torch.where(mask[:, None], images, 255 - images)
    assert torch.equal(teacher(noise, mask).summary, features.summary)


def test_refuses_other_families(grounding_dino_dir):
    with pytest.raises(ValueError, match=r"'grounding-dino'.*dinov2"):
        DINOTeacher(str(grounding_dino_dir))


def test_refuses_a_resolution_that_would_be_cropped(dinov2_dir):
    with pytest.raises(ValueError, match='multiple of the patch of 14'):
        DINOTeacher(str(dinov2_dir), resolution=(64, 64))


def test_refuses_to_guess_the_normalization(dinov2_dir, tmp_path):
    folder = shutil.copytree(dinov2_dir, tmp_path / 'copy')
    (folder / 'preprocessor_config.json').write_text(json.dumps({}))
    with pytest.raises(ValueError, match=r'preprocessor_config\.json with'):
        DINOTeacher(str(folder))
