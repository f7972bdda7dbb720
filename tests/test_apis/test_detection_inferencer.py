"""Zero-shot boxes; trained ones are in test_task_inferencers.py."""

import json

import pytest
import torch
from PIL import Image
from transformers import GroundingDinoForObjectDetection, GroundingDinoProcessor

from kpu_mm.apis import ZeroShotDetectionInferencer
from kpu_mm.apis.detection_inferencer import set_prompt
from kpu_mm.models import ZeroShotDetector

CLASSES = ['cat', 'remote control']


@pytest.fixture(scope='module')
def infer(student_dir):
    return ZeroShotDetectionInferencer(student_dir, device='cpu')


@pytest.fixture(scope='module')
def teacher(student_dir):
    return ZeroShotDetectionInferencer(student_dir, device='cpu', encoder='teacher')


@torch.no_grad()
def untouched(folder, path, text):
    """transformers alone, from the file on."""
    image = Image.open(path)
    model = GroundingDinoForObjectDetection.from_pretrained(folder).eval()
    processor = GroundingDinoProcessor.from_pretrained(folder)
    batch = processor(images=image, text=text, return_tensors='pt')
    return model(**batch), processor, batch, image.size[::-1]


@pytest.mark.parametrize('name', ['a', 'c'])
def test_teacher_grounds_as_transformers_does(name, teacher, pictures, grounding_dino_dir):
    path = pictures / f'{name}.png'
    text = 'a cat and the remote control.'
    out, processor, batch, size = untouched(grounding_dino_dir, path, text)
    level = out.logits.sigmoid().max(-1).values.median().item()
    (expected,) = processor.post_process_grounded_object_detection(
        out, batch.input_ids, threshold=level, text_threshold=level, target_sizes=[size]
    )
    (found,) = teacher(path, texts=text, threshold=level, text_threshold=level)['predictions']
    order = expected['scores'].argsort(descending=True)
    assert len(order) > 3
    torch.testing.assert_close(torch.tensor(found['scores']), expected['scores'][order])
    limits = torch.tensor([size[1], size[0]] * 2).float()
    boxes = expected['boxes'][order].clamp(min=0).minimum(limits)
    torch.testing.assert_close(torch.tensor(found['bboxes']), boxes, rtol=0, atol=1e-2)
    phrases = [expected['text_labels'][i] for i in order]
    assert found['names'] == phrases and len(set(phrases)) > 1


def test_teacher_finds_classes_as_transformers_scores_them(teacher, pictures, grounding_dino_dir):
    path = pictures / 'c.png'
    out, *_ = untouched(grounding_dino_dir, path, 'cat. remote control.')
    (found,) = teacher(path, classes=CLASSES, threshold=-1)['predictions']
    # [CLS] cat . remote control . [SEP]
    scores = out.logits.sigmoid()[0]
    scores = torch.stack([scores[:, 1], scores[:, 3:5].mean(1)], 1)
    best, index = scores.flatten().sort(descending=True)
    torch.testing.assert_close(torch.tensor(found['scores']), best)
    names = [CLASSES[i] for i in (index % 2).tolist()]
    assert found['names'] == names


def test_student_is_the_model_s(infer, student_dir, grounding_dino_dir, pictures):
    """As the detector says of the same pixels, one image alone."""
    model = ZeroShotDetector(
        dict(source=str(grounding_dino_dir)),
        encoder=dict(
            type='kpu_mm.ProjectedBackbone', source=str(student_dir), teacher='grounding_dino'
        ),
    )
    processor = infer.model.decoder.processor
    image = Image.open(pictures / 'c.png')
    pixels = processor.image_processor(
        image, do_normalize=False, do_rescale=False, return_tensors='pt'
    ).pixel_values
    maps = model.encode(pixels)
    (expected,) = model.decoder.detect(maps, CLASSES)
    (found,) = infer(pictures / 'c.png', classes=CLASSES, threshold=-1)['predictions']
    torch.testing.assert_close(torch.tensor(found['scores']), expected.scores, rtol=1e-4, atol=1e-5)
    scale = torch.tensor([80, 150, 80, 150])
    torch.testing.assert_close(
        torch.tensor(found['bboxes']), expected.boxes.clamp(0, 1) * scale, rtol=0, atol=1e-2
    )


def test_threshold_and_files(infer, pictures, tmp_path):
    path = pictures / 'a.png'
    (all_boxes,) = infer(path, classes=CLASSES, threshold=-1)['predictions']
    level = all_boxes['scores'][5]
    result = infer(
        path,
        classes=CLASSES,
        threshold=level,
        return_vis=True,
        out_dir=tmp_path,
        pred_out_dir=tmp_path,
    )
    (found,) = result['predictions']
    above = [s for s in all_boxes['scores'] if s > level]
    assert found['scores'] == above and len(above) == 5
    assert found['bboxes'] == all_boxes['bboxes'][:5]
    assert json.loads((tmp_path / 'a.json').read_text()) == found
    (picture,) = result['visualization']
    assert picture.shape == (96, 128, 3)
    assert (picture != Image.open(path)).any()
    # nothing found is a result too, and its picture the image
    result = infer(path, classes=CLASSES, threshold=1.1, return_vis=True)
    assert result['predictions'][0]['bboxes'] == []
    assert (result['visualization'][0] == Image.open(path)).all()


def test_bad_questions(infer, pictures):
    path = pictures / 'a.png'
    for asked, message in (
        (dict(), 'say what to look for'),
        (dict(classes='cat'), 'say what to look for'),
        (dict(classes=[]), 'class list is empty'),
        (dict(classes=['a cat', ' ']), 'names nothing'),
        (dict(texts='. of the !'), 'names nothing'),
        (dict(texts='cat ' * 70), 'text encoder takes 64'),
        (dict(classes=['cat ' * 70]), 'text encoder takes 61'),
        (dict(texts='a cat', classes=['cat']), 'not both'),
        (dict(texts=['a cat']), 'one free text'),
    ):
        with pytest.raises(ValueError, match=message):
            infer(path, **asked)


class Sample:
    def set_metainfo(self, meta):
        self.meta = meta


def test_prompt_of_names_or_a_text():
    samples = [Sample(), Sample()]
    for classes, texts, default, prompt in (
        (['a', 'b'], None, None, ('a', 'b')),
        (None, 'a text', ['x'], 'a text'),
        (None, None, ['x'], ('x',)),
    ):
        set_prompt(dict(data_samples=samples), classes, texts, default)
        is_list = isinstance(prompt, tuple)
        for sample in samples:
            assert sample.meta == dict(text=prompt, custom_entities=is_list)


def test_no_prompt_or_two():
    for prompt in ((None, None), ('cat', None)):
        with pytest.raises(ValueError, match='say what to look for'):
            set_prompt({}, *prompt)
    with pytest.raises(ValueError, match='not both'):
        set_prompt({}, ['a'], 'b')
    with pytest.raises(ValueError, match='one free text for all'):
        set_prompt({}, None, ['a', 'b'])
