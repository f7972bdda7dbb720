"""The released weights (marker ``real``), and what is refused in their place."""

from importlib.util import find_spec
from pathlib import Path

import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from timm.data import ImageNetInfo, create_transform, resolve_data_config
from torchvision.transforms import v2

from kpu_mm.models.teachers import TimmTeacher
from projects.real_model import lite0

# Photographs that scikit-image and scikit-learn ship, with what they show, as far
# as ImageNet has a class of it (the flower is a dahlia).
SHIPPED = {
    'skimage/data/chelsea.png': 'tiger cat',
    'skimage/data/coffee.png': 'espresso',
    'skimage/data/rocket.jpg': 'missile',
    'sklearn/datasets/images/china.jpg': 'palace',
    'sklearn/datasets/images/flower.jpg': 'daisy',
}


def shipped(path):
    package, _, rest = path.partition('/')
    return Image.open(Path(find_spec(package).origin).parent / rest).convert('RGB')


@pytest.fixture(scope='module')
def released(tmp_path_factory):
    """The teacher and timm's model, each with the released weights."""
    pytest.importorskip(lite0.PACKAGE, reason='make real installs it')
    path = tmp_path_factory.mktemp('lite0') / 'lite0.safetensors'
    lite0.write_weights(path)
    model = timm.create_model(lite0.MODEL).eval()
    # by order, as the names are of another project, and without our reader
    state = torch.load(lite0.released_file(), weights_only=True)
    model.load_state_dict(dict(zip(model.state_dict(), state.values(), strict=True)))
    return TimmTeacher(lite0.MODEL, str(path), indices=[1, 2, 3, 4]), model


@pytest.mark.real
@torch.no_grad()
@pytest.mark.parametrize('path', SHIPPED)
def test_equals_timm_bit_for_bit(released, path):
    teacher, model = released
    whole = create_transform(**resolve_data_config({}, model=model))
    inputs = whole(shipped(path))[None]
    # what timm's transform does before it divides by 255
    resize, crop = (t for t in whole.transforms if 'Resize' in repr(t) or 'CenterCrop' in repr(t))
    raw = v2.functional.pil_to_tensor(crop(resize(shipped(path))))[None]
    assert torch.equal(teacher.prepare(raw)[0], inputs)
    features = teacher(raw)
    expected = model.forward_intermediates(inputs, indices=[1, 2, 3, 4], intermediates_only=True)
    for ours, theirs in zip(features.maps, expected, strict=True):
        assert torch.equal(ours, theirs)
    last = model.forward_head(model.forward_features(inputs), pre_logits=True)
    assert torch.equal(features.summary, last)
    logits = teacher.model.get_classifier()(features.summary)
    assert torch.equal(logits, model(inputs))
    name = ImageNetInfo('imagenet-1k').index_to_description(logits.argmax().item())
    assert name == SHIPPED[path]


@pytest.mark.real
def test_tensors_match_in_order(released):
    _, model = released
    state = torch.load(lite0.released_file(), weights_only=True)
    # the kinds of parameters also match, which shapes alone do not tell apart
    for theirs, ours in zip(state, model.state_dict(), strict=True):
        assert theirs.rpartition('.')[2] == ours.rpartition('.')[2]


def test_refuses_another_order():
    state = dict(timm.create_model(lite0.MODEL).state_dict())
    first, second = list(state)[:2]
    swapped = {first: state[second], second: state[first], **dict(list(state.items())[2:])}
    with pytest.raises(ValueError, match=rf"'{first}' is \(32,\), but timm's '{first}' is \(32, 3"):
        lite0.in_timm_order(swapped)
    del state[first]
    with pytest.raises(ValueError, match='295 tensors do not fill'):
        lite0.in_timm_order(state)


def test_names_what_is_missing(monkeypatch):
    monkeypatch.setattr(lite0, 'PACKAGE', 'no_such_package')
    with pytest.raises(FileNotFoundError, match=r'pip install -r requirements/real\.txt'):
        lite0.released_file()


def test_refuses_another_file(tmp_path, monkeypatch):
    package = tmp_path / 'other_model'
    (package / 'models').mkdir(parents=True)
    (package / '__init__.py').touch()
    save_file(
        {'x': torch.zeros(1)}, package / 'models' / f'efficientnet-lite0-{lite0.SHA256[:8]}.pth'
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(lite0, 'PACKAGE', 'other_model')
    with pytest.raises(RuntimeError, match='has sha256'):
        lite0.released_file()
