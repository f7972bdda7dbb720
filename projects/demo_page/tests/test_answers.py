import re

import numpy as np
import pytest
from PIL import Image

from projects.demo_page.answers import (
    MAX_CHARACTERS,
    MAX_NAMES,
    MAX_SIDE,
    Answers,
    box_table,
    class_bars,
    heat_range,
    split_names,
)
from projects.demo_page.tests.conftest import INPUTS


def test_names_between_commas_and_line_ends():
    assert split_names(' cat, red dog\n\n,a car,') == ['cat', 'red dog', 'a car']
    assert split_names(' ,\n') == []
    with pytest.raises(ValueError, match=f'{MAX_NAMES + 1} classes'):
        split_names('cat,' * (MAX_NAMES + 1))


def test_answers_say_what_was_found(answers, uploaded):
    path = uploaded
    image = np.asarray(Image.open(path))
    student, teacher = answers.features(path, 'clip')
    assert student.shape == teacher.shape == image.shape
    for html in answers.classes(path, 'clip', 'cat, dog'):
        # Scores are rounded to 0.1 %.
        shares = re.findall(r'<b>([\d.]+)%', html)
        assert sum(map(float, shares)) == pytest.approx(100, abs=0.2)
    shown = answers.boxes(path, 'grounding_dino', 'a cat. a dog.', 0.2)
    for picture, table in (shown[:2], shown[2:]):
        assert picture.shape == image.shape
        scores = [float(s) for s in re.findall(r'<td>(\d\.\d+)</td>', table)]
        assert min(scores) > 0.2 and scores == sorted(scores)[::-1]
    shown = answers.heat(path, 'clip', 'a cat')
    for picture, text in (shown[:2], shown[2:]):
        assert picture.shape == image.shape and 'Similarity from' in text


def test_large_images_are_scaled_down(answers, uploads):
    # Twice as wide as allowed, so both sides are halved.
    path = uploads.folder / 'wide.png'
    Image.new('RGB', (2 * MAX_SIDE, 400), 'red').save(path)
    generous = Answers(answers.comparison, 10**7, uploads)
    student, _ = generous.features(str(path), 'clip')
    assert student.shape == (200, MAX_SIDE, 3)


@pytest.mark.parametrize('task', INPUTS)
def test_images_that_cannot_be_taken(answers, task, uploads):
    ask = getattr(answers, task)
    with pytest.raises(ValueError, match='there is no image yet'):
        ask(None, *INPUTS[task])
    (uploads.folder / 'text.png').write_text('no image')
    with pytest.raises(ValueError, match=r"'text\.png' is not an image"):
        ask(str(uploads.folder / 'text.png'), *INPUTS[task])
    Image.new('L', (1000, 101)).save(uploads.folder / 'large.png')
    with pytest.raises(ValueError, match=r"^'large\.png' has .* pixels"):
        ask(str(uploads.folder / 'large.png'), *INPUTS[task])


def test_a_hundred_megapixels_are_refused_by_their_header(answers, uploads):
    path = uploads.folder / 'huge.png'
    Image.new('1', (10_000, 10_000)).save(path)
    # Too little of the file is left to decode it.
    path.write_bytes(path.read_bytes()[:100])
    generous = Answers(answers.comparison, 99_000_000, uploads)
    with pytest.raises(ValueError, match=r'100000000 pixels\) exceeds limit'):
        generous.features(str(path), 'clip')


@pytest.mark.parametrize(
    ('task', 'typed', 'message'),
    [
        ('classes', '', 'class list is empty'),
        ('classes', 'cat,' * 1001, f'this page takes {MAX_CHARACTERS}'),
        ('boxes', 'cat ' * 250_000, '1000000 characters; this page'),
        ('heat', 'cat ' * 250_000, '1000000 characters; this page'),
        ('classes', ' , ', 'class list is empty'),
        ('classes', 'cat, of the', "'of the' names nothing"),
        ('classes', 'cat, ?!', "'?!' names nothing"),
        ('classes', 'cat ' * 80, 'has more tokens than the text tower takes'),
        ('boxes', '', 'names nothing'),
        ('boxes', 'the. of a.', 'names nothing'),
        ('boxes', '...', 'names nothing'),
        ('boxes', 'cat ' * 300, 'tokens; the text encoder takes'),
        ('heat', '', 'names nothing'),
        ('heat', 'with the', "'with the' names nothing"),
        ('heat', 'cat ' * 80, 'has more tokens than the text tower takes'),
    ],
)
def test_texts_that_say_nothing_or_too_much(answers, uploaded, task, typed, message):
    teacher, _, *rest = INPUTS[task]
    with pytest.raises(ValueError, match=re.escape(message)):
        getattr(answers, task)(uploaded, teacher, typed, *rest)


def test_bars_are_as_long_as_the_scores():
    html = class_bars(dict(names=['<b>cat</b>', 'dog'], scores=[0.75, 0.0004]), topk=2)
    assert '<b>cat' not in html and '&lt;b&gt;cat&lt;/b&gt;' in html
    assert '<b>75.0%</b>' in html and 'width:75.0%' in html
    assert '<b>0.0%</b>' in html
    many = dict(names=['x'] * 30, scores=[0.1] * 30)
    assert class_bars(many).count('<li>') == 10


def test_box_table():
    html = box_table(
        dict(
            names=['a <i>', 'dog'],
            scores=[0.91234, 0.5],
            bboxes=[[1.2, 2.6, 30, 40], [0, 0, 9.5, 8]],
        ),
        0.25,
    )
    assert '<td>a &lt;i&gt;</td><td>0.912</td><td>1, 3, 30, 40</td>' in html
    assert html.count('<tr>') == 3
    empty = box_table(dict(names=[], scores=[], bboxes=[]), 0.3)
    assert 'No box scores more than 0.3' in empty


def test_heat_range():
    heat = np.float32([[[-0.25, 0], [0.1, 0.5]]])
    assert '-0.250 to 0.500' in heat_range(dict(scores=heat))
