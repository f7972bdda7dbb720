"""The page and its server."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from pathlib import Path

import gradio as gr
from starlette.middleware import Middleware

from .answers import MAX_SIDE, Answers
from .examples import Example, find_examples
from .request_guard import RequestGuard
from .tabs import build_tabs
from .uploads import UploadFolder

_INTRODUCTION = """\
# A student beside its teachers

`{student}` was distilled from {teachers}. **Student**: its features in the
place of a teacher's own image encoder, before that teacher's text encoder
and decoder. **Teacher**: the same teacher, untouched.
"""
_CSS = Path(__file__).with_name('page.css')
_WAITING = 16  # requests; one runs at a time


def build_page(answers: Answers) -> gr.Blocks:
    """Lay the page out.

    Args:
        answers: The functions behind the buttons.

    Returns:
        The page.
    """
    # read when a component is made: where it keeps its pictures
    os.environ['GRADIO_TEMP_DIR'] = str(answers.uploads.folder)
    pool, examples = answers.comparison.pool, find_examples()
    with gr.Blocks(
        title='kpu_mm: a student beside its teachers',
        analytics_enabled=False,
        # uploads and pictures are deleted after an hour, and at the end
        delete_cache=(600, 3600),
    ) as page:
        gr.Markdown(
            _INTRODUCTION.format(
                student=Path(pool.student).name,
                teachers=' and '.join(pool.teachers['features']),
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
                gallery = _gallery(examples) if examples else None
            with gr.Column(scale=3, min_width=480):
                texts = build_tabs(answers, image)
        if gallery is not None:
            gallery.click(
                lambda i: [
                    str(examples[i].path),
                    *(examples[i].texts[task] for task in texts),
                ],
                gallery,
                [image, *texts.values()],
                api_visibility='private',
                show_progress='hidden',
            )
    page.queue(max_size=_WAITING)
    return page


def _gallery(examples: Sequence[Example]) -> gr.Dataset:
    return gr.Dataset(
        components=[gr.Image(render=False)],
        samples=[[str(example.path)] for example in examples],
        type='index',
        label='Examples',
    )


def check_address(host: str, port: int) -> None:
    """Find out whether a page can be served there.

    Args:
        host: Address to listen at.
        port: Port to listen at.

    Raises:
        OSError: If it cannot.
    """
    try:
        with socket.create_server((host, port)):
            pass
    except OSError as error:
        raise OSError(
            f'port {port} of {host} cannot be used ({error.strerror}); '
            'choose another --port or --host.'
        ) from error


def serve(
    page: gr.Blocks,
    uploads: UploadFolder,
    host: str = '127.0.0.1',
    port: int = 7860,
) -> str:
    """Start to serve the page, and nothing else of Gradio.

    Args:
        page: What :func:`build_page` gave.
        uploads: The folder that the page was built with.
        host: Address to listen at. Defaults to this machine's own, which
            others cannot reach.
        port: Port to listen at. Defaults to 7860.

    Returns:
        The page's address. The server runs on in a thread.

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
        # the system's fonts: nothing is fetched from elsewhere
        theme=gr.themes.Soft(
            font=['system-ui', 'sans-serif'], font_mono=['monospace']
        ),
        css_paths=_CSS,
        allowed_paths=list(map(str, examples)),
        app_kwargs=dict(
            middleware=[
                Middleware(
                    RequestGuard, page=page, uploads=uploads, shown=examples
                )
            ]
        ),
        prevent_thread_lock=True,
    )
    return str(address)
