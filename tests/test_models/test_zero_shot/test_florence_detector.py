import pytest
import torch
from mmengine.structures import BaseDataElement
from transformers import Florence2ForConditionalGeneration, Florence2Processor

from kpu_mm.models import FlorenceDetector
from kpu_mm.registry import MODELS


class Sample(BaseDataElement):
    """As MMDetection's, without needing it."""


@pytest.fixture(scope='module')
def detector(florence_dir):
    return MODELS.build(
        dict(type='kpu_mm.FlorenceDetector', source=str(florence_dir), max_new_tokens=4)
    ).eval()


def samples(*shapes, **meta):
    return [Sample(metainfo=dict(img_shape=shape, ori_shape=shape, **meta)) for shape in shapes]


def test_answers_as_the_library_does(detector, florence_dir):
    images = [torch.randint(0, 256, (3, *size), dtype=torch.uint8) for size in ((40, 60), (80, 50))]
    model = Florence2ForConditionalGeneration.from_pretrained(florence_dir)
    processor = Florence2Processor.from_pretrained(florence_dir)
    arrays = [image.permute(1, 2, 0).numpy() for image in images]
    batch = processor(images=arrays, text=['<OD>'] * 2, return_tensors='pt')
    tokens = model.eval().generate(**batch, num_beams=3, max_new_tokens=4, do_sample=False)
    assert detector.generate(images) == processor.batch_decode(tokens)
    padded = torch.zeros(2, 3, 80, 60)
    for k, image in enumerate(images):
        padded[k, :, : image.shape[1], : image.shape[2]] = image
    seen = []
    detector.generate, generate = seen.append, detector.generate
    with pytest.raises(TypeError):  # append gives no answers
        detector(padded, samples((40, 60), (80, 50)), mode='predict')
    detector.generate = generate
    for ours, image in zip(seen[0], images, strict=True):
        assert torch.equal(ours, image)


@pytest.fixture
def say(detector, monkeypatch):
    def say(*answers):
        monkeypatch.setattr(detector, 'generate', lambda _: list(answers))
        shapes = [(200, 100)] * len(answers)
        inputs = torch.zeros(len(answers), 3, 200, 100)
        names = ('dog', 'Person', 'remote control')
        return detector(inputs, samples(*shapes, text=names), mode='predict')

    return say


def test_boxes_and_classes(say):
    """Locations are the middles of 1000 cells a side, cut to pixels."""
    (sample,) = say(
        '</s><s>person<loc_0><loc_500><loc_999><loc_999>'
        '<loc_100><loc_100><loc_200><loc_200>'
        'unicorn<loc_1><loc_1><loc_9><loc_9>'
        'remote control<loc_10><loc_20><loc_30><loc_40></s>'
    )
    found = sample.pred_instances
    assert found.labels.tolist() == [1, 1, 2]
    assert found.label_names == ['Person', 'Person', 'remote control']
    expected = [[0, 100, 99, 199], [10, 20, 20, 40], [1, 4, 3, 8]]
    assert found.bboxes.tolist() == expected
    assert found.scores.tolist() == [1, 1, 1]


@pytest.mark.parametrize('answer', ['</s><s></s>', 'dog', 'dog<loc_1>'])
def test_answers_without_boxes(say, answer):
    (sample,) = say(answer)
    assert sample.pred_instances.bboxes.shape == (0, 4)
    assert len(sample.pred_instances.labels) == 0


def test_clear_messages(detector, florence_dir, tmp_path, monkeypatch):
    assert not detector.state_dict()
    with pytest.raises(ValueError, match="knows 'predict'"):
        detector(torch.zeros(1, 3, 40, 40), [], mode='loss')
    monkeypatch.setattr(detector, 'generate', lambda _: [''])
    image = torch.zeros(1, 3, 40, 40)
    with pytest.raises(ValueError, match='nothing to look for: pass classes'):
        detector.predict(image, samples((40, 40)))
    with pytest.raises(ValueError, match='needs a list of class names'):
        detector.predict(image, samples((40, 40), text='a cat'))
    for name in ('config.json', 'model.safetensors'):
        (tmp_path / name).symlink_to(florence_dir / name)
    with pytest.raises(FileNotFoundError, match='put processor_config'):
        FlorenceDetector(str(tmp_path))
