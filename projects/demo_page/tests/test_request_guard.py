"""Requests that no browser sends, to a page that is served."""

import json
import os
import random
import socket
import time

import httpx
import numpy as np
import pytest
from PIL import Image

from projects.demo_page.page import build_page, serve
from projects.demo_page.tabs import show_errors
from projects.demo_page.tests.conftest import INPUTS
from projects.demo_page.uploads import NO_IMAGE, NOT_UPLOADED

WRONG = 'this is not a request of the page; reload it.'
UNKNOWN = 'this page has nothing at this address.'
API = '/gradio_api'


class Client:
    """Sends raw requests and waits for results in the queue."""

    def __init__(self, address, page):
        self.http = httpx.Client(base_url=address, timeout=60, trust_env=False, http2=False)
        self.page = page
        self.count = 0

    def fn(self, task):
        (index,) = (i for i, f in self.page.fns.items() if f.name == task)
        return index

    def values(self, task, image):
        """The inputs of an event in their order."""
        return [image, *INPUTS[task]]

    def join(self, **event):
        return self.http.post(f'{API}/queue/join', json=event)

    def ask(self, task, data):
        """Send an event; return its results, or the message of its error."""
        self.count += 1
        session = f's{self.count}'
        answer = self.join(fn_index=self.fn(task), data=data, session_hash=session)
        if answer.status_code != 200:
            return answer.json()['detail']
        return self.result(session)

    def result(self, session):
        query = dict(session_hash=session)
        # A deadline, because the queue's heartbeat keeps the request alive
        # even if no result ever comes.
        end = time.monotonic() + 60
        with self.http.stream('GET', f'{API}/queue/data', params=query) as stream:
            for line in stream.iter_lines():
                assert time.monotonic() < end, 'the queue gave no answer'
                message = json.loads(line.removeprefix('data: ') or '{}')
                if message.get('msg') == 'process_completed':
                    output = message['output']
                    return output.get('error') or output['data']
        raise AssertionError('the queue gave no answer')

    def upload(self, data, name='a.png'):
        return self.http.post(f'{API}/upload', files=dict(files=(name, data)))

    def picture(self, shown):
        answer = self.http.get(f'{API}/file={shown["path"]}')
        return answer.content


@pytest.fixture(scope='module')
def client(answers):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('GRADIO_TEMP_DIR', 'changed by the page')
        patch.setenv('no_proxy', '*')
        page = build_page(answers)
        with socket.socket() as probe:
            probe.bind(('127.0.0.1', 0))
            port = probe.getsockname()[1]
        address = serve(page, answers.uploads, '127.0.0.1', port)
        try:
            yield Client(address, page)
        finally:
            page.close(verbose=False)


@pytest.fixture(scope='module')
def image(client, pictures):
    (path,) = client.upload((pictures / 'a.png').read_bytes()).json()
    return dict(path=path, meta=dict(_type='gradio.FileData'))


@pytest.mark.slow
def test_what_a_browser_sends_is_answered(client, image, answers, pictures):
    student, teacher = client.ask('features', client.values('features', image))
    expected = answers.features(image['path'], 'clip')
    for shown, picture in zip((student, teacher), expected, strict=True):
        path = answers.uploads.find(shown['path'])
        np.testing.assert_array_equal(np.asarray(Image.open(path)), picture)
        assert client.picture(shown) == path.read_bytes()
    original = client.picture(image)
    assert original == (pictures / 'a.png').read_bytes()
    for task in ('classes', 'boxes', 'heat'):
        assert isinstance(client.ask(task, client.values(task, image)), list)


@pytest.mark.slow
@pytest.mark.parametrize('task', INPUTS)
def test_no_other_file_is_read(client, answers, pictures, tmp_path, task):
    inside = answers.uploads.folder
    for name, target in (('out.png', pictures / 'a.png'), ('in', tmp_path)):
        if not (inside / name).is_symlink():
            (inside / name).symlink_to(target)
    if not (inside / 'fifo.png').exists():
        os.mkfifo(inside / 'fifo.png')
    paths = (
        pictures / 'a.png',
        inside / 'out.png',
        inside / 'in' / 'a.png',
        inside / 'fifo.png',
        inside,
        '/dev/zero',
        '/etc/passwd',
        '/nosuch/a.png',
        f'{inside}/../a.png',
        'http://127.0.0.1:9/a.png',
        'a\0.png',
        '',
    )
    meta = dict(_type='gradio.FileData')
    for path in map(str, paths):
        for upload in (
            dict(path=path),
            dict(path=path, meta=meta),
            dict(path=path, url=f'http://127.0.0.1:9/{path}', meta=meta),
            dict(path=path, url=path, is_stream=True, meta=meta),
        ):
            said = client.ask(task, client.values(task, upload))
            assert said == NOT_UPLOADED
        # The handler of the button refuses it too, without the guard.
        teacher, *typed = client.values(task, None)[1:]
        with pytest.raises(Exception, match=NOT_UPLOADED):
            show_errors(getattr(answers, task))(dict(path=path), teacher, *typed)


@pytest.mark.slow
@pytest.mark.parametrize(
    'path',
    [
        '/etc/passwd',
        '/nosuch',
        '/dev/zero',
        '../../etc/passwd',
        'http://127.0.0.1:9/',
        'https://example.org/',
        'file:///etc/passwd',
        '//example.org',
    ],
)
def test_the_file_route_gives_uploads_only(client, path):
    for route in ('file=', 'file/', 'proxy='):
        answer = client.http.get(f'{API}/{route}{path}')
        assert answer.status_code == 404
        assert answer.json() == dict(detail=UNKNOWN)


@pytest.mark.slow
@pytest.mark.parametrize(
    ('method', 'path'),
    [
        ('POST', '/run/predict'),
        ('POST', '/api/features'),
        ('POST', '/call/features'),
        ('POST', '/call/v2/features'),
        ('POST', '/component_server'),
        ('POST', '/process_recording'),
        ('POST', '/stream/x'),
        ('POST', '/cancel'),
        ('POST', '/vibe-edit'),
        ('GET', '/deep_link?session_hash=s1'),
        ('GET', '/custom_component/x/client/component/index.js'),
        ('GET', '/stream/s1/0/1/playlist-file'),
        ('GET', '/queue/join'),
        ('DELETE', '/upload'),
    ],
)
def test_other_routes_are_closed(client, method, path):
    answer = client.http.request(method, API + path, json={})
    assert answer.status_code == 404
    assert answer.json() == dict(detail=UNKNOWN)


@pytest.mark.slow
def test_options_of_gradio_are_dropped(client):
    plain = client.http.get('/')
    for query in ('deep_link=../../x', 'page=nosuch'):
        assert client.http.get(f'/?{query}').status_code == 200
    assert plain.status_code == 200


@pytest.mark.slow
def test_uploads_are_images_within_the_limit(client, answers, pictures):
    data = (pictures / 'a.png').read_bytes()
    before = set(answers.uploads.folder.rglob('*'))
    for content in (b'', b'text', b'<svg/>', b'%!PS-Adobe-3.0 EPSF-3.0\n'):
        answer = client.upload(content)
        assert (answer.status_code, answer.text) == (400, NO_IMAGE)
    answer = client.upload(data + bytes(answers.uploads.max_bytes))
    assert answer.status_code == 400
    assert 'exceeds the maximum allowed size of 1 MB' in answer.text
    answer = client.upload(data + bytes(2 * answers.uploads.max_bytes))
    assert answer.status_code == 413
    url = f'{API}/upload'
    several = [('files', ('a.png', data)), ('files', ('b.png', data))]
    for sent in (
        dict(files=several),
        dict(files=dict(other=('a.png', data))),
        dict(data=dict(files='a')),
        dict(json=dict(files='a')),
        dict(content=data),
        dict(content=data, headers={'content-type': 'multipart/form-data'}),
        dict(content=data, headers={'content-type': 'multipart/form-data; boundary=x'}),
    ):
        answer = client.http.post(url, **sent)
        assert (answer.status_code, answer.text) == (400, WRONG)
    # Without Content-Length nothing is read.
    answer = client.http.post(url, content=iter([data]))
    assert answer.status_code == 413
    assert set(answers.uploads.folder.rglob('*')) == before


@pytest.mark.slow
def test_long_texts_are_not_tokenised(client, image):
    event = client.values('heat', image)
    event[2] = 'a' * 5000
    assert '5000 characters; this page takes' in client.ask('heat', event)
    event[2] = 'a' * 1_000_000
    assert client.ask('heat', event) == 'the text is too long.'


def mutate(rng, value, depth=0):
    """Replace the value, or a part of it, by something invalid."""
    odd = (
        None, True, -1, 10**30, 1e308, float('nan'), '', 'x' * 300, '\ud800',
        '\0', [], {}, [[]] * 3, dict(path=[]), dict(path='/dev/zero'),
        dict(__type__='update'), '../' * 40, '<b>',
    )  # fmt: skip
    if depth < 3 and rng.random() < 0.7:
        if isinstance(value, dict) and value:
            key = rng.choice(sorted(value))
            return {**value, key: mutate(rng, value[key], depth + 1)}
        if isinstance(value, list) and value:
            i = rng.randrange(len(value))
            return [*value[:i], mutate(rng, value[i], depth + 1), *value[i + 1 :]]
    return rng.choice(odd)


@pytest.mark.slow
def test_seeded_fuzz_of_requests(client, image):
    rng = random.Random(0)
    good = client.values('features', image)
    before = [client.picture(shown) for shown in client.ask('features', good)]
    asked = 0
    for count in range(300):
        task = rng.choice(list(INPUTS))
        session = f'fuzz{count}'
        event = dict(
            fn_index=client.fn(task),
            session_hash=session,
            data=client.values(task, image),
            event_data=None,
            trigger_id=None,
        )
        event = mutate(rng, event)
        body = json.dumps(event).encode()
        if rng.random() < 0.2:
            cut = rng.randrange(len(body))
            body = body[:cut] + rng.randbytes(rng.randrange(9)) + body[cut:]
        answer = client.http.post(f'{API}/queue/join', content=body)
        if answer.status_code == 200:
            asked += 1
            name = json.loads(body)['session_hash']
            said = client.result(name)
        else:
            assert answer.status_code in (400, 413), body
            said = answer.json()['detail']
            assert said.endswith('.')
        assert said and 'Traceback' not in str(said), body
    assert 0 < asked < 150
    # Nesting beyond the recursion limit of the JSON parser.
    deep = b'[' * 60_000
    answer = client.http.post(f'{API}/queue/join', content=deep)
    assert answer.json()['detail'] == WRONG
    # The server still works, and pictures have not changed.
    after = [client.picture(shown) for shown in client.ask('features', good)]
    assert after == before


@pytest.mark.slow
def test_seeded_fuzz_of_addresses(client):
    rng = random.Random(1)
    parts = (
        'gradio_api', 'file=', 'proxy=', '..', '%2e%2e', '%00', 'assets',
        'static', 'svelte', 'index.html', 'config', 'queue', 'data', 'http:',
        '%ff', '@', 'info', '\\',
    )  # fmt: skip
    for _ in range(300):
        chosen = rng.choices(parts, k=rng.randrange(1, 6))
        address = '/' + '/'.join(chosen)
        answer = client.http.get(address)
        assert answer.status_code in (200, 404, 422), address
        assert 'Traceback' not in answer.text
