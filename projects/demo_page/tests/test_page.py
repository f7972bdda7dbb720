import gradio as gr
import pytest
from PIL import Image

from kpu_mm.export import write_student
from kpu_mm.models.student import read_student
from kpu_mm.models.zero_shot.prompts import check_text, find_classes
from projects.demo_page.answers import Answers, split_names
from projects.demo_page.comparison import Comparison
from projects.demo_page.inferencer_pool import InferencerPool
from projects.demo_page.page import _EXAMPLES, build_page, find_examples
from projects.demo_page.tabs import show_errors


def test_what_users_got_wrong_is_show_errors():
    def refuse(path, text):
        raise ValueError(f'{path}: <b>{text}</b> is nothing.')

    with pytest.raises(gr.Error) as caught:
        show_errors(refuse)(dict(path='a.png', url='x'), 'it')
    assert caught.value.message == 'a.png: &lt;b&gt;it&lt;/b&gt; is nothing.'
    # Gradio writes the traceback to the log.
    assert caught.value.print_exception


def test_faults_of_the_program_are_told_apart():
    def fail(path):
        raise RuntimeError(f'shapes of {path}')

    with pytest.raises(gr.Error, match='RuntimeError') as caught:
        show_errors(fail)(None)
    assert caught.value.title == 'Unexpected error'
    assert 'shapes' not in caught.value.message
    assert str(caught.value.__cause__) == 'shapes of None'
    assert caught.value.print_exception


def test_one_request_at_a_time_and_nothing_for_clients(answers):
    page = build_page(answers)
    # Lambdas fill in the examples; all others run models.
    asking = [f for f in page.fns.values() if f.fn.__name__ != '<lambda>']
    assert {f.fn.__name__ for f in asking} == {'features', 'classes', 'boxes', 'heat'}
    assert {(f.concurrency_id, f.concurrency_limit) for f in asking} == {('models', 1)}
    assert not any(f.preprocess for f in asking)
    assert {f.api_visibility for f in page.fns.values()} == {'private'}
    assert not page.analytics_enabled


def labels(page):
    blocks = page.blocks.values()
    return [b.label for b in blocks if isinstance(b, gr.Tab)]


def test_tabs_of_what_there_are_teachers_for(answers, uploads, distilled, tmp_path):
    assert labels(build_page(answers)) == ['Features', 'Classes', 'Boxes', 'Heat map']
    config, checkpoint, _ = distilled
    folder = write_student(read_student(config, checkpoint), tmp_path / 'out')
    few = Answers(Comparison(InferencerPool(folder, 'cpu')), 1000, uploads)
    assert labels(build_page(few)) == ['Features']


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
    monkeypatch.setattr('projects.demo_page.page.find_spec', lambda name: None)
    assert find_examples() == []
