"""Zero-shot classes; trained ones are in test_task_inferencers.py."""

import json
import shutil

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image

from kpu_mm.apis import ZeroShotClassificationInferencer
from kpu_mm.models import ProjectedBackbone

CLASSES = ['cat', 'dog', 'red car']
TEMPLATES = ['a photo of a {}.', 'my {}.']
# as some models of open_clip state
MODES = [
    dict(interpolation='bilinear', resize_mode='squash'),
    dict(resize_mode='longest', fill_color=99),
]
ASK = dict(classes=CLASSES, templates=TEMPLATES)


def by_label(prediction):
    """Scores in the order of the classes."""
    pairs = zip(prediction['labels'], prediction['scores'], strict=True)
    return torch.tensor([score for _, score in sorted(pairs)])


@pytest.fixture(scope='module')
def infer(student_dir):
    return ZeroShotClassificationInferencer(student_dir, device='cpu')


@torch.no_grad()
def untouched(folder, path):
    """Scores by open_clip alone, from the file on."""
    name = f'local-dir:{folder}'
    model, _, prepare = open_clip.create_model_and_transforms(name)
    text = open_clip.build_zero_shot_classifier(
        model.eval(), open_clip.get_tokenizer(name), CLASSES, TEMPLATES
    )
    pixels = prepare(Image.open(path))[None]
    image = model.encode_image(pixels, normalize=True)
    logits = model.logit_scale.exp() * image @ text
    if model.logit_bias is None:
        return logits.softmax(-1)[0]
    return (logits + model.logit_bias).sigmoid()[0]


@pytest.mark.parametrize(
    'kind, mode',
    [('clip', {}), ('siglip_text', {}), ('clip', MODES[0]), ('clip', MODES[1])],
    ids=['clip', 'siglip', 'bilinear', 'padded'],
)
def test_teacher_is_open_clip(kind, mode, student_dir, pictures, request, tmp_path):
    """CLIP crops, SigLIP squashes; both are other sizes than the config's."""
    folder = shutil.copytree(request.getfixturevalue(f'{kind}_dir'), tmp_path / 'model')
    config = json.loads((folder / 'open_clip_config.json').read_text())
    config['preprocess_cfg'] |= mode
    (folder / 'open_clip_config.json').write_text(json.dumps(config))
    infer = ZeroShotClassificationInferencer(
        student_dir, device='cpu', encoder='teacher', teacher_cfg=dict(model=f'local-dir:{folder}')
    )
    found = infer(pictures, **ASK)['predictions']
    for name, prediction in zip('abc', found, strict=True):
        expected = untouched(folder, pictures / f'{name}.png')
        torch.testing.assert_close(by_label(prediction), expected, rtol=1e-4, atol=0)
        assert prediction['scores'] == sorted(prediction['scores'], reverse=True)
        names = [CLASSES[label] for label in prediction['labels']]
        assert prediction['names'] == names
        assert prediction['img_path'] == str(pictures / f'{name}.png')
    scores = [by_label(p) for p in found]
    assert not torch.allclose(scores[0], scores[2], rtol=1e-2, atol=0)


@torch.no_grad()
def test_student_by_hand(infer, student_dir, clip_dir, pictures):
    """Its projected summary against the text embeddings."""
    name = f'local-dir:{clip_dir}'
    model, _, prepare = open_clip.create_model_and_transforms(name)
    resize, crop = prepare.transforms[:2]
    image = crop(resize(Image.open(pictures / 'c.png')))
    raw = torch.tensor(np.asarray(image)).permute(2, 0, 1)[None].float()
    summary = ProjectedBackbone(student_dir, 'clip').encode(raw).summary
    text = open_clip.build_zero_shot_classifier(
        model.eval(), open_clip.get_tokenizer(name), CLASSES, TEMPLATES
    )
    summary = torch.nn.functional.normalize(summary, dim=-1)
    expected = (model.logit_scale.exp() * summary @ text).softmax(-1)[0]
    (found,) = infer(pictures / 'c.png', **ASK)['predictions']
    torch.testing.assert_close(by_label(found), expected)


def test_classes_of_each_call(infer, pictures):
    path = pictures / 'a.png'
    (three,) = infer(path, **ASK)['predictions']
    (same,) = infer(path)['predictions']
    assert same == three
    (best,) = infer(path, topk=2)['predictions']
    assert best['names'] == three['names'][:2]
    assert best['scores'] == three['scores'][:2]
    (two,) = infer(path, classes=CLASSES[:2], templates=TEMPLATES)['predictions']
    assert len(two['names']) == 2 and sum(two['scores']) == pytest.approx(1)
    ratio = by_label(two)[0] / by_label(two)[1]
    expected = by_label(three)[0] / by_label(three)[1]
    assert ratio == pytest.approx(expected.item(), rel=1e-4)


def test_picture_and_files(infer, pictures, tmp_path):
    result = infer(
        pictures / 'a.png',
        return_vis=True,
        out_dir=tmp_path,
        pred_out_dir=tmp_path / 'preds',
        **ASK,
    )
    (picture,) = result['visualization']
    written = np.asarray(Image.open(tmp_path / 'vis/a.png'))
    assert (written == picture).all()
    # the text is written at the top, and colours stay RGB below
    same = np.asarray(Image.open(pictures / 'a.png')) == picture
    assert not same[:48].all() and same[80:].mean() > 0.9
    told = json.loads((tmp_path / 'preds/a.json').read_text())
    assert told == result['predictions'][0]


def test_bad_questions(infer, pictures):
    path = pictures / 'a.png'
    for asked, message in (
        (dict(classes=[]), 'class list is empty'),
        (dict(classes=['cat', '. the']), "'. the' names nothing"),
        (dict(classes=['cat ' * 90], templates=['{}']), 'takes, 77'),
        (dict(classes=['cat'], templates=['a {} in {place}']), 'no other braces'),
        (dict(templates=['{}']), 'templates belong to classes'),
        (dict(texts='a cat'), r"unknown argument \{'texts'\}"),
        (dict(batch_size=0), 'batch_size=0'),
    ):
        with pytest.raises(ValueError, match=message):
            infer(path, **asked)


def test_unknown_encoder(student_dir):
    with pytest.raises(ValueError, match="encoder='both': choose from"):
        ZeroShotClassificationInferencer(student_dir, encoder='both')
