"""The page's tabs: a question, a button, and two answers."""

from __future__ import annotations

import functools
from collections.abc import Callable
from functools import partial
from html import escape
from typing import Any, NamedTuple

import gradio as gr

from .answers import MAX_CHARACTERS, Answers
from .inferencer_pool import ENCODERS


class _Tab(NamedTuple):
    """What is in a tab.

    Args:
        task: Name of the task, and of the function that answers.
        label: What the tab is called.
        about: What it shows.
        button: What its button says.
        inputs: Makers of what users set besides the teacher, a text first.
        outputs: Makers of what an answer consists of.
    """

    task: str
    label: str
    about: str
    button: str
    inputs: tuple[Callable[[], Any], ...]
    outputs: tuple[Callable[[], Any], ...]


_picture = partial(
    gr.Image, format='png', show_label=False, buttons=['fullscreen']
)
_text = partial(gr.Textbox, lines=1, max_lines=4, max_length=MAX_CHARACTERS)

_TABS = (
    _Tab(
        'features',
        'Features',
        "The three main directions of the teacher's finest feature map, as "
        'red, green and blue. The student is drawn in the directions of the '
        'teacher: equal features have equal colours.',
        'Show features',
        (),
        (_picture,),
    ),
    _Tab(
        'classes',
        'Classes',
        "The image's summary against the teacher's embeddings of class "
        'names, each in the prompt “a photo of a …”.',
        'Classify',
        (partial(_text, label='Classes, between commas'),),
        (gr.HTML,),
    ),
    _Tab(
        'boxes',
        'Boxes',
        "Boxes of what a text speaks of, by the teacher's own decoder.",
        'Find boxes',
        (
            partial(_text, label='Text; a full stop ends a phrase'),
            partial(
                gr.Slider,
                0.0,
                1.0,
                0.25,
                step=0.01,
                label='Only boxes that score more than',
            ),
        ),
        (_picture, partial(gr.HTML, elem_classes='scroll')),
    ),
    _Tab(
        'heat',
        'Heat map',
        "Similarity of every position with the teacher's embedding of a "
        'text, from blue to red. Both pictures have one scale.',
        'Draw heat map',
        (partial(_text, label='Text'),),
        (_picture, gr.HTML),
    ),
)


def build_tabs(answers: Answers, image: gr.Image) -> dict[str, gr.Textbox]:
    """Lay out a tab for each task that the student has a teacher for.

    Args:
        answers: The functions behind the buttons.
        image: Where the image is uploaded.

    Returns:
        For each task with a text, where it is typed.
    """
    texts: dict[str, gr.Textbox] = {}
    for tab in _TABS:
        teachers = answers.comparison.pool.teachers[tab.task]
        if not teachers:
            continue
        with gr.Tab(tab.label, elem_id=f'{tab.task}-tab'):
            typed = _build_tab(tab, answers, image, teachers)
        if typed:
            texts[tab.task] = typed[0]
    return texts


def _build_tab(
    tab: _Tab, answers: Answers, image: gr.Image, teachers: list[str]
) -> list[Any]:
    gr.Markdown(tab.about)
    with gr.Group(elem_id=f'{tab.task}-question'):
        typed = [make() for make in tab.inputs]
        teacher = gr.Radio(
            teachers,
            value=teachers[0],
            label='Teacher',
            visible=len(teachers) > 1,
        )
    button = gr.Button(
        tab.button, variant='primary', elem_id=f'{tab.task}-button'
    )
    shown = []
    with gr.Row():
        for side in ENCODERS:
            with gr.Column(
                elem_id=f'{tab.task}-{side}',
                elem_classes='side',
                min_width=240,
            ):
                gr.Markdown(f'### {side.capitalize()}')
                shown += [make() for make in tab.outputs]
    gr.on(
        [button.click, *(box.submit for box in typed[:1])],
        told(getattr(answers, tab.task)),
        [image, teacher, *typed],
        shown,
        # Gradio would open the image before any limit is looked at
        preprocess=False,
        # one request of all at a time: each fills the processor
        concurrency_limit=1,
        concurrency_id='models',
        api_visibility='private',
    )
    return typed


def told(function: Callable[..., Any]) -> Callable[..., Any]:
    """Tell users what went wrong; the traceback goes into the log.

    Args:
        function: What happens at a click; takes the path of the image, or
            None, and what was typed.

    Returns:
        The function for what the browser sends. What it raises is a
        ``gr.Error``, which Gradio shows and logs.
    """

    @functools.wraps(function)
    def tell(upload: dict[str, Any] | None, *typed: Any) -> Any:
        try:
            # no dict is no upload, which the function says
            path = upload['path'] if isinstance(upload, dict) else upload
            return function(path, *typed)
        except (FileNotFoundError, ValueError) as error:
            raise gr.Error(escape(str(error), quote=False)) from error
        except Exception as error:
            raise gr.Error(
                f'This should not have happened ({type(error).__name__}); '
                "the server's log tells more.",
                title='Unexpected error',
            ) from error

    return tell
