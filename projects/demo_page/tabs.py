"""The page's tabs: each has inputs, a button and two columns of results."""

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
    """Content of a tab.

    Args:
        task: Name of the task and of the method of :class:`Answers`.
        label: Title of the tab.
        about: Description.
        button: Text on the button.
        inputs: Constructors of the input components besides image and
            teacher; a text box comes first.
        outputs: Constructors of the result components.
    """

    task: str
    label: str
    about: str
    button: str
    inputs: tuple[Callable[[], Any], ...]
    outputs: tuple[Callable[[], Any], ...]


_picture = partial(gr.Image, format='png', show_label=False, buttons=['fullscreen'])
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
        "Boxes of the objects that a text names, by the teacher's decoder.",
        'Find boxes',
        (
            partial(_text, label='Text; a full stop ends a phrase'),
            partial(gr.Slider, 0.0, 1.0, 0.25, step=0.01, label='Only boxes that score more than'),
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
    """Build a tab for each task that one of the teachers supports.

    Args:
        answers: The functions behind the buttons.
        image: The component for the image.

    Returns:
        The text box of each task that has one.
    """
    texts: dict[str, gr.Textbox] = {}
    for tab in _TABS:
        teachers = answers.comparison.pool.teachers[tab.task]
        # A student of CLIP alone has no boxes, for example.
        if not teachers:
            continue
        with gr.Tab(tab.label, elem_id=f'{tab.task}-tab'):
            typed = _build_tab(tab, answers, image, teachers)
        if typed:
            texts[tab.task] = typed[0]
    return texts


def _build_tab(tab: _Tab, answers: Answers, image: gr.Image, teachers: list[str]) -> list[Any]:
    gr.Markdown(tab.about)
    with gr.Group(elem_id=f'{tab.task}-inputs'):
        typed = [make() for make in tab.inputs]
        teacher = gr.Radio(
            teachers,
            value=teachers[0],
            label='Teacher',
            # With one teacher there is nothing to choose.
            visible=len(teachers) > 1,
        )
    button = gr.Button(tab.button, variant='primary', elem_id=f'{tab.task}-button')
    shown = []
    with gr.Row():
        for side in ENCODERS:
            with gr.Column(elem_id=f'{tab.task}-{side}', elem_classes='side', min_width=240):
                gr.Markdown(f'### {side.capitalize()}')
                shown += [make() for make in tab.outputs]
    gr.on(
        # Enter in the text box works as the button does.
        [button.click, *(box.submit for box in typed[:1])],
        show_errors(getattr(answers, tab.task)),
        [image, teacher, *typed],
        shown,
        # Otherwise Gradio would decode the image before its size is checked.
        preprocess=False,
        # One request of all tabs at a time, because each uses all cores.
        concurrency_limit=1,
        concurrency_id='models',
        api_visibility='private',
    )
    return typed


def show_errors(function: Callable[..., Any]) -> Callable[..., Any]:
    """Make the page show errors; the traceback goes into the log.

    Args:
        function: Handler of a click. It takes the path of the image, or
            None, and the values of the inputs.

    Returns:
        A handler of what the browser sends. It raises ``gr.Error`` only,
        which Gradio shows and logs.
    """

    @functools.wraps(function)
    def handle(upload: dict[str, Any] | None, *typed: Any) -> Any:
        try:
            # The function itself refuses values other than a path.
            path = upload['path'] if isinstance(upload, dict) else upload
            return function(path, *typed)
        # These are errors of the input, and their messages are for users.
        except (FileNotFoundError, ValueError) as error:
            raise gr.Error(escape(str(error), quote=False)) from error
        except Exception as error:
            raise gr.Error(
                f'This should not have happened ({type(error).__name__}); '
                "the server's log has the details.",
                title='Unexpected error',
            ) from error

    return handle
