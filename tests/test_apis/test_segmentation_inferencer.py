"""Zero-shot pixels; trained ones are in test_task_inferencers.py."""

import mmcv
import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from kpu_mm.apis import ZeroShotSegmentationInferencer
from kpu_mm.apis.segmentation_inferencer import label_map, resize
from kpu_mm.models.teachers import CLIPTeacher

CLASSES = ['cat', 'dog', 'red car']
ASK = dict(classes=CLASSES, templates=['a {}.'])


@pytest.fixture(scope='module')
def infer(student_dir):
    return ZeroShotSegmentationInferencer(student_dir, device='cpu')


def build_teacher(student_dir, folder):
    return ZeroShotSegmentationInferencer(
        student_dir, device='cpu', encoder='teacher', teacher_cfg=dict(model=f'local-dir:{folder}')
    )


@torch.no_grad()
def untouched(folder, path):
    """Cosines and logits of open_clip's dense tokens, window by window."""
    name = f'local-dir:{folder}'
    model = open_clip.create_model(name).eval()
    model.visual.output_tokens = True
    text = open_clip.build_zero_shot_classifier(
        model, open_clip.get_tokenizer(name), CLASSES, ASK['templates']
    )
    prepare = CLIPTeacher(name).prepare
    # the shorter side is one window and a half
    image = mmcv.imread(str(path), channel_order='rgb')
    image = mmcv.imrescale(image, (2048, 96))
    x = torch.from_numpy(image).permute(2, 0, 1)[None]
    height, width = x.shape[2:]
    total = torch.zeros(1, 3, height, width)
    count = torch.zeros(1, 1, height, width)
    tops = [*range(0, height - 64, 32), height - 64]
    for top in tops:
        for left in [*range(0, width - 64, 32), width - 64]:
            window = x[..., top : top + 64, left : left + 64]
            _, tokens = model.visual(prepare(window)[0])
            tokens = F.normalize(tokens @ model.visual.proj, dim=-1)
            cosine = (tokens @ text).unflatten(1, (4, 4)).permute(0, 3, 1, 2)
            cosine = F.interpolate(cosine, (64, 64), mode='bilinear')
            total[..., top : top + 64, left : left + 64] += cosine
            count[..., top : top + 64, left : left + 64] += 1
    size = mmcv.imread(str(path)).shape[:2]
    cosine = F.interpolate(total / count, size, mode='bilinear')[0]
    return cosine, model.logit_scale.exp() * cosine


@pytest.mark.parametrize('name', ['a', 'c'])
def test_teacher_is_open_clip(name, student_dir, clip_dir, pictures):
    infer = build_teacher(student_dir, clip_dir)
    path = pictures / f'{name}.png'
    cosine, logits = untouched(clip_dir, path)
    (found,) = infer(path, score_maps='cosine', **ASK)['predictions']
    torch.testing.assert_close(torch.from_numpy(found['scores']), cosine, rtol=0, atol=1e-5)
    (found,) = infer(path, score_maps='probability', **ASK)['predictions']
    torch.testing.assert_close(
        torch.from_numpy(found['scores']), logits.softmax(0), rtol=0, atol=1e-5
    )
    best, second = logits.topk(2, dim=0).values
    clear = (best - second > 1e-4).numpy()
    assert clear.mean() > 0.99
    labels = logits.argmax(0).numpy()
    assert (found['sem_seg'] == labels)[clear].all()
    assert len(np.unique(labels)) > 1
    assert found['names'] == CLASSES
    shares = [(found['sem_seg'] == k).mean() for k in range(3)]
    assert found['shares'] == pytest.approx(shares)


def test_siglip_scores_are_sigmoids(student_dir, siglip_text_dir, pictures):
    infer = build_teacher(student_dir, siglip_text_dir)
    path = pictures / 'a.png'
    (cosine,), (found,) = (
        infer(path, score_maps=kind, **ASK)['predictions'] for kind in ('cosine', 'probability')
    )
    clip = infer.model.decode_head.model
    expected = torch.from_numpy(cosine['scores']) * clip.logit_scale.exp()
    expected = (expected + clip.logit_bias).sigmoid()
    torch.testing.assert_close(torch.from_numpy(found['scores']), expected, rtol=1e-4, atol=0)


def test_heat_map_of_one_text(infer, pictures):
    """It is the text's map among others, and a picture of it."""
    path = pictures / 'a.png'
    (three,) = infer(path, score_maps='cosine', **ASK)['predictions']
    result = infer(path, classes=['dog'], templates=['a {}.'], score_maps='cosine', return_vis=True)
    (one,) = result['predictions']
    assert set(one) == {'img_path', 'names', 'scores'}
    assert one['names'] == ['dog'] and one['scores'].shape == (1, 96, 128)
    np.testing.assert_allclose(one['scores'][0], three['scores'][1], atol=1e-6)
    assert result['visualization'][0].shape == (96, 128, 3)
    # the names that were asked for are those of the next call
    (again,) = infer(path, score_maps='cosine')['predictions']
    assert again['names'] == ['dog']
    assert (again['scores'] == one['scores']).all()
    with pytest.raises(ValueError, match="every pixel would be 'dog'"):
        infer(path)


def test_colours_follow_labels(infer, pictures):
    path = pictures / 'c.png'
    result = infer(path, return_vis=True, **ASK)
    (picture,), (found,) = result['visualization'], result['predictions']
    assert picture.shape == (150, 80, 3)
    image = np.asarray(Image.open(path)).astype(float)
    tint = picture - 0.2 * image  # what is mixed in
    for label in np.unique(found['sem_seg']):
        colours = tint[found['sem_seg'] == label]
        # but for the written names
        assert (np.abs(colours - np.median(colours, 0)) < 1.5).mean() > 0.8


def test_bad_questions(infer, pictures):
    path = pictures / 'a.png'
    for asked, message in (
        (dict(classes=[]), 'class list is empty'),
        (dict(classes=['the']), 'names nothing'),
        (dict(classes=['cat']), "every pixel would be 'cat'"),
        (dict(score_maps='softmax', **ASK), "score_maps='softmax': choose"),
    ):
        with pytest.raises(ValueError, match=message):
            infer(path, **asked)


def test_labels_without_all_logits_at_once():
    logits = torch.randn(19, 5, 7)
    whole = F.interpolate(logits[None], (33, 20), mode='bilinear')[0]
    assert torch.equal(label_map(logits, (33, 20)), whole.argmax(0))
    assert len(label_map(logits, (33, 20)).unique()) > 9


def test_same_size_is_left_alone():
    logits = torch.randn(3, 5, 7)
    assert torch.equal(resize(logits, (5, 7)), logits)
    assert torch.equal(label_map(logits, (5, 7)), logits.argmax(0))
