import gradio as gr
import pytest

from kpu_mm.export import write_student
from kpu_mm.models.student import read_student
from projects.demo_page import Answers, Comparison, InferencerPool
from projects.demo_page.page import build_page
from projects.demo_page.tabs import told


def test_what_users_got_wrong_is_told():
    def refuse(path, text):
        raise ValueError(f'{path}: <b>{text}</b> is nothing.')

    with pytest.raises(gr.Error) as caught:
        told(refuse)(dict(path='a.png', url='x'), 'it')
    assert caught.value.message == 'a.png: &lt;b&gt;it&lt;/b&gt; is nothing.'
    # Gradio writes the traceback into the log
    assert caught.value.print_exception


def test_faults_of_the_program_are_told_apart():
    def fail(path):
        raise RuntimeError(f'shapes of {path}')

    with pytest.raises(gr.Error, match='RuntimeError') as caught:
        told(fail)(None)
    assert caught.value.title == 'Unexpected error'
    assert 'shapes' not in caught.value.message
    assert str(caught.value.__cause__) == 'shapes of None'
    assert caught.value.print_exception


def test_one_request_at_a_time_and_nothing_for_clients(answers):
    page = build_page(answers)
    asking = [f for f in page.fns.values() if f.fn.__name__ != '<lambda>']
    assert {f.fn.__name__ for f in asking} == {
        'features',
        'classes',
        'boxes',
        'heat',
    }
    assert {(f.concurrency_id, f.concurrency_limit) for f in asking} == {
        ('models', 1)
    }
    assert not any(f.preprocess for f in asking)
    assert {f.api_visibility for f in page.fns.values()} == {'private'}
    assert not page.analytics_enabled


def labels(page):
    blocks = page.blocks.values()
    return [b.label for b in blocks if isinstance(b, gr.Tab)]


def test_tabs_of_what_there_are_teachers_for(
    answers, uploads, distilled, tmp_path
):
    assert labels(build_page(answers)) == [
        'Features',
        'Classes',
        'Boxes',
        'Heat map',
    ]
    config, checkpoint, _ = distilled
    folder = write_student(read_student(config, checkpoint), tmp_path / 'out')
    few = Answers(Comparison(InferencerPool(folder, 'cpu')), 1000, uploads)
    assert labels(build_page(few)) == ['Features']
