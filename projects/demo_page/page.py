"""The page, its example images, and its server."""

from __future__ import annotations

import os
import socket
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import gradio as gr
from starlette.middleware import Middleware

from .answers import MAX_SIDE, Answers
from .request_guard import RequestGuard
from .tabs import build_tabs
from .uploads import UploadFolder

_INTRODUCTION = """\
# A student and its teachers, side by side

`{student}` was distilled from {teachers}. **Student**: it replaces the
teacher's image encoder, while text encoder and decoder stay the teacher's.
**Teacher**: the original teacher.
"""
_CSS = Path(__file__).with_name('page.css')
_MAX_QUEUE = 16  # waiting requests; one runs at a time


class Example(NamedTuple):
    """A photograph to try the page on.

    Args:
        path: The image.
        texts: Content of the text box, by task.
    """

    path: Path
    texts: dict[str, str]


# File of scikit-image, class names, text for boxes, text for the heat map.
_EXAMPLES = (
    ('chelsea.png', 'cat, dog, tiger, fox, teddy bear', 'a cat with green eyes.', 'nose'),
    (
        'coffee.png',
        'cup of coffee, bowl of soup, glass of wine, clock',
        'a cup of coffee on a saucer. a spoon.',
        'spoon',
    ),
    (
        'astronaut.png',
        'astronaut, fire fighter, race driver, pilot',
        'a woman in an orange suit. a flag. a space shuttle.',
        'space shuttle',
    ),
    (
        'rocket.jpg',
        'rocket, lighthouse, church tower, candle',
        'a rocket on a launch pad.',
        'rocket',
    ),
    (
        'motorcycle_left.png',
        'motorcycle, bicycle, car, garage',
        'a motorcycle in a garage. a wheel.',
        'wheel',
    ),
)


def find_examples() -> list[Example]:
    """List the examples; none without scikit-image, which has the files."""
    package = find_spec('skimage')
    if package is None or package.origin is None:
        return []
    data = Path(package.origin).parent / 'data'
    return [
        Example(data / name, dict(classes=classes, boxes=boxes, heat=heat))
        for name, classes, boxes, heat in _EXAMPLES
        if (data / name).is_file()
    ]


def build_page(answers: Answers) -> gr.Blocks:
    """Build the page.

    Args:
        answers: The functions behind the buttons.
    """
    # Gradio's components read this folder when they are constructed.
    os.environ['GRADIO_TEMP_DIR'] = str(answers.uploads.folder)
    pool, examples = answers.comparison.pool, find_examples()
    with gr.Blocks(
        title='kpu_mm: a student and its teachers',
        analytics_enabled=False,
        # Seconds between two clean-ups, and the age of files they delete.
        delete_cache=(600, 3600),
    ) as page:
        gr.Markdown(
            _INTRODUCTION.format(
                student=Path(pool.student).name, teachers=' and '.join(pool.teachers['features'])
            )
        )
        with gr.Row():
            with gr.Column(scale=1, min_width=280):
                image = gr.Image(
                    label='Image',
                    sources=['upload', 'clipboard'],
                    height=280,
                    buttons=[],
                    elem_id='image',
                )
                gr.Markdown(
                    f'Up to {answers.uploads.max_bytes / 2**20:g} MB and '
                    f'{answers.max_pixels / 1e6:g} million pixels; more '
                    f'than {MAX_SIDE} on a side are scaled down.',
                    elem_classes='hint',
                )
                if examples:
                    gallery = gr.Dataset(
                        components=[gr.Image(render=False)],
                        samples=[[str(example.path)] for example in examples],
                        type='index',
                        label='Examples',
                    )
            with gr.Column(scale=3, min_width=480):
                texts = build_tabs(answers, image)
        if examples:
            gallery.click(
                lambda i: [str(examples[i].path), *(examples[i].texts[task] for task in texts)],
                gallery,
                [image, *texts.values()],
                api_visibility='private',
                show_progress='hidden',
            )
    page.queue(max_size=_MAX_QUEUE)
    return page


def check_address(host: str, port: int) -> None:
    """Check that a server can listen at an address.

    Args:
        host: Address to listen at.
        port: Port to listen at.

    Raises:
        OSError: If it cannot.
    """
    # Loading the models takes long, so find this out before.
    try:
        with socket.create_server((host, port)):
            pass
    except OSError as error:
        raise OSError(
            f'port {port} of {host} cannot be used ({error.strerror}); '
            'choose another --port or --host.'
        ) from error


def serve(page: gr.Blocks, uploads: UploadFolder, host: str = '127.0.0.1', port: int = 7860) -> str:
    """Serve the page, without the other routes of Gradio.

    Args:
        page: The page of :func:`build_page`.
        uploads: The folder that the page was built with.
        host: Address to listen at. Defaults to '127.0.0.1', which other
            machines cannot reach.
        port: Port to listen at. Defaults to 7860.

    Returns:
        The page's address. The server runs in a thread.

    Raises:
        OSError: If the port is taken; see :func:`check_address`.
    """
    examples = [example.path for example in find_examples()]
    _, address, _ = page.launch(
        server_name=host,
        server_port=port,
        max_file_size=uploads.max_bytes,
        share=False,
        ssr_mode=False,
        mcp_server=False,
        pwa=False,
        enable_monitoring=False,
        footer_links=[],
        quiet=True,
        # System fonts only, because others would come from another host.
        theme=gr.themes.Soft(font=['system-ui', 'sans-serif'], font_mono=['monospace']),
        css_paths=_CSS,
        allowed_paths=list(map(str, examples)),
        app_kwargs=dict(
            middleware=[Middleware(RequestGuard, page=page, uploads=uploads, shown=examples)]
        ),
        prevent_thread_lock=True,
    )
    return str(address)
