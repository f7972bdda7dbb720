"""A guard that passes on only the requests of the page's own script."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import anyio.to_thread
import gradio as gr
from starlette.datastructures import Headers, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from .uploads import UploadFolder

# Bytes of an event. The longest text fits, even if JSON writes each of its
# characters as two \uXXXX escapes.
MAX_EVENT = 2**16
# Bytes for headers and boundaries of a form around one file.
FORM_MARGIN = 2**14

_FILE = '/gradio_api/file='
_UPLOAD = '/gradio_api/upload'
_JOIN = '/gradio_api/queue/join'
# All paths that a browser reads. Excluded, because they fetch from other
# hosts, read stored states or run functions by name: proxy=, deep_link,
# component_server, run, call, custom_component, process_recording, vibe-*.
_PAGES = re.compile(
    r'/|/config|/theme\.css|/favicon\.ico|/robots\.txt|/manifest\.json'
    r'|/(assets|static|svelte)(/[\w\-@]+(\.[\w\-@]+)*)+'
    r'|/gradio_api/(info|app_id|theme\.css|startup-events|queue/status)'
    r'|/gradio_api/heartbeat/\w{1,64}'
    r'|/gradio_api/queue/data'
)
_SESSION = re.compile(r'\w{1,64}')
_WRONG = 'this is not a request of the page; reload it.'
_UNKNOWN = 'this page has nothing at this address.'


class RequestGuard:
    """Middleware that refuses all but the page's own requests.

    Gradio's interface is general: it has redirects, downloads of URLs,
    functions by name and values of any shape. This guard answers only the
    routes that are listed here, and passes on only values that it checked.

    Args:
        app: Gradio's application.
        page: The page, whose events define the values they take.
        uploads: The only folder that requests may name.
        shown: Files outside that folder which the page shows, namely its
            examples. Defaults to ().
    """

    def __init__(
        self, app: ASGIApp, page: gr.Blocks, uploads: UploadFolder, shown: Iterable[Path] = ()
    ) -> None:
        self.app = app
        self.page = page
        self.uploads = uploads
        self.shown = {str(path) for path in shown}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope['type'] == 'lifespan':
            await self.app(scope, receive, send)
        elif scope['type'] == 'websocket':
            await send({'type': 'websocket.close', 'code': 1008})
        else:
            path, method = scope['path'], scope['method']
            if method == 'POST' and path == _UPLOAD:
                answer = await self._upload(Request(scope, receive))
                await answer(scope, receive, send)
            elif method == 'POST' and path == _JOIN:
                await self._join(scope, receive, send)
            elif method in ('GET', 'HEAD') and self._is_readable(path):
                await self.app(_plain(scope), receive, send)
            else:
                await _refuse(404, _UNKNOWN)(scope, receive, send)

    def _is_readable(self, path: str) -> bool:
        if not path.startswith(_FILE):
            return _PAGES.fullmatch(path) is not None
        name = path.removeprefix(_FILE)
        if name in self.shown:
            return True
        try:
            self.uploads.find(name)
        except ValueError:
            return False
        return True

    async def _upload(self, request: Request) -> Response:
        """Store one image; Gradio's own route takes any file.

        The client expects a list of paths, or an error text to show.
        """
        limit = self.uploads.max_bytes + FORM_MARGIN
        if not 0 < _length(request.headers) <= limit:
            return PlainTextResponse(self.uploads.too_large, 413)
        try:
            async with request.form(max_files=1, max_fields=0) as form:
                (file,) = form.getlist('files')
                if not isinstance(file, UploadFile):
                    raise ValueError(_WRONG)
                data, name = await file.read(), file.filename or ''
        # Starlette and its parser raise these for a malformed form.
        except (HTTPException, LookupError, ValueError, ClientDisconnect):
            return PlainTextResponse(_WRONG, 400)
        try:
            path = await anyio.to_thread.run_sync(self.uploads.store, name, data)
        except ValueError as error:
            return PlainTextResponse(str(error), 400)
        # Gradio deletes the files of this set when they are an hour old.
        self.page.upload_file_set.add(str(path))
        return JSONResponse([str(path)])

    async def _join(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Queue an event that is rebuilt from checked values."""
        if not 0 < _length(Headers(scope=scope)) <= MAX_EVENT:
            await _refuse(413, 'the text is too long.')(scope, receive, send)
            return
        try:
            event = self._check(json.loads(await Request(scope, receive).body()))
        except ClientDisconnect:
            return
        except (ValueError, RecursionError) as error:
            known = isinstance(error, _Refusal)
            text = str(error) if known else _WRONG
            await _refuse(400, text)(scope, receive, send)
            return
        body = json.dumps(event).encode()

        async def receive_event() -> dict[str, Any]:
            nonlocal body
            part, body = body, b''
            if part:
                return {'type': 'http.request', 'body': part}
            # After the body Gradio waits for a disconnect.
            return dict(await receive())

        scope = _plain(scope)
        scope['headers'] = [
            (b'content-type', b'application/json'),
            (b'content-length', str(len(body)).encode()),
            *(h for h in scope['headers'] if not h[0].startswith(b'content-')),
        ]
        await self.app(scope, receive_event, send)

    def _check(self, sent: Any) -> dict[str, Any]:
        """Return the checked fields that an event needs, without others."""
        if not isinstance(sent, dict):
            raise _Refusal(_WRONG)
        index, session = sent.get('fn_index'), sent.get('session_hash')
        values = sent.get('data')
        if (
            type(index) is not int
            or index not in self.page.fns
            or not isinstance(session, str)
            or _SESSION.fullmatch(session) is None
            or not isinstance(values, list)
        ):
            raise _Refusal(_WRONG)
        inputs = self.page.fns[index].inputs
        if len(values) != len(inputs):
            raise _Refusal(_WRONG)
        pairs = zip(values, inputs, strict=True)
        return dict(
            fn_index=index, session_hash=session, data=[self._check_value(*pair) for pair in pairs]
        )

    def _check_value(self, value: Any, component: Any) -> Any:
        if isinstance(component, gr.Image):
            return None if value is None else self._check_image(value)
        if isinstance(component, gr.Dataset):
            samples = component.raw_samples or component.samples
            fits = type(value) is int and 0 <= value < len(samples)
        elif isinstance(component, gr.Slider):
            fits = type(value) in (int, float) and (component.minimum <= value <= component.maximum)
        elif isinstance(component, gr.Radio):
            fits = value in [choice for _, choice in component.choices]
        else:
            fits = isinstance(value, str) and _is_text(value)
        if not fits:
            raise _Refusal(_WRONG)
        return value

    def _check_image(self, value: Any) -> dict[str, Any]:
        named = value.get('path') if isinstance(value, dict) else None
        try:
            path = self.uploads.find(named)
        except ValueError as error:
            raise _Refusal(str(error)) from error
        # Without a url, which Gradio would download.
        return dict(path=str(path), meta=dict(_type='gradio.FileData'))


class _Refusal(ValueError):
    """The message may be sent to the client."""


def _refuse(status: int, sentence: str) -> Response:
    return JSONResponse(dict(detail=sentence), status)


def _length(headers: Headers) -> int:
    """Content-Length, which the server enforces; 0 if it is missing."""
    text = headers.get('content-length', '')
    return int(text) if re.fullmatch(r'[0-9]{1,12}', text) else 0


def _is_text(value: str) -> bool:
    """Whether it can be encoded; JSON may contain lone surrogates."""
    return not any('\ud800' <= character <= '\udfff' for character in value)


def _plain(scope: Scope) -> Scope:
    """Remove options of Gradio that the page does not use.

    A query could name a stored state (``deep_link``) or another page; the
    queue needs only the session. Images need no range requests.
    """
    query = scope['query_string']
    session = re.fullmatch(rb'session_hash=\w{1,64}', query)
    return dict(
        scope,
        query_string=query if session else b'',
        headers=[h for h in scope['headers'] if h[0] != b'range'],
    )
