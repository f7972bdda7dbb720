from PIL import Image

from kpu_mm.models.zero_shot.class_names import check_text, find_classes
from projects.demo_page.answers import split_names
from projects.demo_page.examples import _EXAMPLES, find_examples


def test_each_is_an_image_and_texts_that_are_taken():
    examples = find_examples()  # scikit-image is among the tests' needs
    assert len(examples) == len(_EXAMPLES)
    for path, texts in examples:
        with Image.open(path) as image:
            assert image.size[0] * image.size[1] < 1e6
        find_classes(split_names(texts['classes']))
        check_text(texts['boxes'])
        check_text(texts['heat'])


def test_none_without_scikit_image(monkeypatch):
    monkeypatch.setattr(
        'projects.demo_page.examples.find_spec', lambda name: None
    )
    assert find_examples() == []
