"""The page, as a user has it: a server, a browser, files and typed text."""

import random
import socket
import subprocess
import sys
import time
from pathlib import Path

import mmcv
import numpy as np
import psutil
import pytest
import skimage
from PIL import Image

from projects.demo_page.comparison import Comparison
from projects.demo_page.inferencer_pool import ENCODERS, InferencerPool
from projects.demo_page.tests.browser import SECONDS, Page, asked_hosts, open_chromium
from tests.runs import ENV, ROOT

TOOL = ('-m', 'projects.demo_page')
PHOTOGRAPH = Path(skimage.__file__).parent / 'data' / 'chelsea.png'


def run(*args, **env):
    return subprocess.run(
        [sys.executable, *TOOL, *map(str, args)],
        env={**ENV, **env, 'PYTHONPATH': str(ROOT)},
        capture_output=True,
        text=True,
    )


def free_port():
    """Return a free port below the range of automatic ports."""
    for port in random.sample(range(20_000, 29_000), 100):
        with socket.socket() as probe:
            if probe.connect_ex(('127.0.0.1', port)):
                return port
    raise AssertionError('no port is free')


@pytest.fixture(scope='module')
def served(zero_shot_run, tmp_path_factory):
    """Port, process and log of a server with a limit of 1 MB."""
    folder = tmp_path_factory.mktemp('served')
    port, log = free_port(), folder / 'log.txt'
    command = [sys.executable, *TOOL, '--model', zero_shot_run / 'iter_1.pth']
    command += ['--port', str(port), '--device', 'cpu', '--max-megabytes', '1']
    with log.open('w') as out:
        server = subprocess.Popen(
            command,
            cwd=folder,
            env={
                **ENV,
                'PYTHONPATH': str(ROOT),
                'GRADIO_TEMP_DIR': str(folder / 'uploads'),
                # No server listens there, so proxied requests would fail.
                'http_proxy': 'http://127.0.0.1:9',
            },
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    try:
        end = time.time() + SECONDS
        while f'page is at http://127.0.0.1:{port}' not in log.read_text():
            assert server.poll() is None and time.time() < end, log.read_text()
            time.sleep(0.2)
        yield port, psutil.Process(server.pid), log
    finally:
        server.kill()
        server.wait()


@pytest.fixture(scope='module')
def page(served, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('no_proxy', '*')
        browser = open_chromium(tmp_path_factory.mktemp('profile'))
        try:
            yield Page(browser, f'http://127.0.0.1:{served[0]}')
        finally:
            browser.quit()


@pytest.fixture(scope='module')
def photograph(page):
    """The photograph, uploaded, as OpenCV has it."""
    page.upload(PHOTOGRAPH)
    page.wait(lambda: page.shows_upload(PHOTOGRAPH))
    return mmcv.imread(PHOTOGRAPH)


@pytest.fixture(scope='module')
def comparison(zero_shot_run):
    """What the page computes; test_comparison.py tests it by itself."""
    return Comparison(InferencerPool(zero_shot_run / 'iter_1.pth', 'cpu'))


def assert_shown(page, task, pair):
    for side, expected in zip(ENCODERS, pair, strict=True):
        np.testing.assert_allclose(page.picture(task, side), expected.picture, atol=1)


@pytest.mark.slow
@pytest.mark.parametrize('teacher', ['clip', 'grounding_dino'])
def test_features(page, photograph, comparison, teacher):
    (choice,) = page.find(f'#features-inputs input[value={teacher}]')
    before = page.addresses('#features-teacher img')
    choice.click()
    page.ask('features')
    page.wait(lambda: page.addresses('#features-teacher img') not in ([], before))
    pair = comparison.features(photograph, teacher)
    assert_shown(page, 'features', pair)


@pytest.mark.slow
def test_classes(page, photograph, comparison):
    names = ['cat', 'dog', 'remote <b>control</b>']
    page.ask('classes', ', '.join(names))
    pair = comparison.classes(photograph, 'clip', names)
    for side, expected in zip(ENCODERS, pair, strict=True):
        rows = f'#classes-{side} .bars li'
        page.wait(lambda rows=rows: page.find(rows))
        shown = [row.text.split('\n') for row in page.find(rows)]
        assert [name for name, _ in shown] == expected['names']
        shares = [float(share.rstrip('%')) / 100 for _, share in shown]
        np.testing.assert_allclose(shares, expected['scores'], atol=6e-4)


@pytest.mark.slow
def test_boxes(page, photograph, comparison):
    text = 'a cat. a remote control.'
    page.ask('boxes', text)
    pair = comparison.boxes(photograph, 'grounding_dino', text, 0.25)
    for side, (expected, _) in zip(ENCODERS, pair, strict=True):
        head, *cells = page.cells(f'#boxes-{side} .boxes tr')
        assert head == ['phrase', 'score', 'x1, y1, x2, y2']
        assert [name for name, _, _ in cells] == expected['names'] != []
        scores = [float(score) for _, score, _ in cells]
        np.testing.assert_allclose(scores, expected['scores'], atol=6e-4)
        corners = [[float(x) for x in box.split(',')] for _, _, box in cells]
        np.testing.assert_allclose(corners, expected['bboxes'], atol=0.51)
    assert_shown(page, 'boxes', pair)


@pytest.mark.slow
def test_heat_maps(page, photograph, comparison, tmp_path):
    page.ask('heat', 'cat')
    for side, expected in zip(ENCODERS, comparison.heat(photograph, 'clip', 'cat'), strict=True):
        drawn = page.picture('heat', side).astype(int)
        # Rounding may move a value across the border of two colours.
        assert np.abs(drawn - expected.picture).max() <= 8
        assert np.abs(drawn - expected.picture).mean() < 0.1
    page.browser.save_screenshot(str(tmp_path / 'page.png'))
    with Image.open(tmp_path / 'page.png') as screenshot:
        assert screenshot.width > 1000
        # None means more than 10,000 colours, so the page is not blank.
        assert screenshot.convert('RGB').getcolors(10_000) is None


@pytest.mark.slow
@pytest.mark.parametrize(
    ('task', 'text', 'message'),
    [
        ('classes', '', 'the class list is empty'),
        ('classes', 'cat, of the', "'of the' names nothing"),
        ('classes', 'cat ' * 80, 'more tokens than the text tower takes'),
        ('boxes', '?!', "'?!' names nothing"),
        ('boxes', 'cat ' * 80, 'the text encoder takes'),
        ('heat', '<i>the</i>', "'<i>the</i>' names nothing"),
    ],
)
def test_texts_that_cannot_be_taken(page, photograph, served, task, text, message):
    page.ask(task, text)
    assert message in page.error()
    log = served[2].read_text()
    assert 'Traceback' in log and message in log


@pytest.mark.slow
def test_files_that_cannot_be_taken(page, tmp_path):
    files = {name: tmp_path / name for name in ('a.txt', 'b.png', 'c.png', 'd.png')}
    files['a.txt'].write_text('no image')
    page.upload(files['a.txt'])
    assert 'Invalid file type' in page.error()

    page.ask('features')
    assert 'there is no image yet' in page.error()

    files['d.png'].write_text('no image either')
    page.upload(files['d.png'])
    assert 'the upload is not an image' in page.error()

    # A truncated file is an image by its header.
    files['b.png'].write_bytes(PHOTOGRAPH.read_bytes()[:100_000])
    page.upload(files['b.png'])
    page.wait(lambda: page.shows_upload(files['b.png']))
    page.ask('features')
    assert "'b.png' is not an image that can be decoded" in page.error()

    Image.new('1', (10_000, 10_000)).save(files['c.png'])
    page.upload(files['c.png'])
    page.wait(lambda: page.shows_upload(files['c.png']))
    page.ask('features')
    assert '(100000000 pixels) exceeds limit' in page.error()

    heavy = tmp_path / 'heavy.png'
    # A valid image with trailing bytes beyond the limit of 1 MB.
    heavy.write_bytes(PHOTOGRAPH.read_bytes() + bytes(2**20))
    page.upload(heavy)
    assert 'exceed the maximum allowed size' in page.error()


@pytest.mark.slow
def test_it_goes_on_with_an_example(page):
    page.find('button.gallery-item')[0].click()
    page.wait(lambda: page.shows_upload(PHOTOGRAPH))
    page.open('classes')
    (box,) = page.find('#classes-inputs textarea')
    page.wait(lambda: 'teddy bear' in box.get_attribute('value'))
    page.ask('classes')
    page.wait(lambda: 'teddy bear' in page.find('#classes-student')[0].text)


@pytest.mark.slow
def test_nobody_else_has_part_in_it(page, served):
    port, server, _ = served
    assert asked_hosts(page.browser) == {f'127.0.0.1:{port}'}
    # The server listens on one address and connects to no other host.
    connections = server.net_connections('inet')
    listening = [c.laddr for c in connections if c.status == 'LISTEN']
    assert [tuple(address) for address in listening] == [('127.0.0.1', port)]
    assert {c.raddr.ip for c in connections if c.raddr} <= {'127.0.0.1'}


@pytest.mark.slow
def test_uploads_are_deleted_at_the_end(page, served):
    _, server, log = served
    uploads = log.parent / 'uploads'
    names = {path.name for path in uploads.rglob('*.png')}
    assert {'b.png', 'c.png'} < names
    server.terminate()
    server.wait(SECONDS)
    assert not [path for path in uploads.rglob('*') if path.is_file()]


def test_refusals(zero_shot_run):
    done = run('--model', 'nosuch', '--port', free_port())
    assert done.returncode == 2 and "'nosuch' is neither" in done.stderr
    done = run('--model', 'x', '--max-megapixels', 0)
    assert done.returncode == 2 and 'must be positive' in done.stderr
    with socket.socket() as taken:
        taken.bind(('127.0.0.1', 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = run('--model', zero_shot_run / 'iter_1.pth', '--port', port)
    assert done.returncode == 2
    assert f'port {port} of 127.0.0.1 cannot be used' in done.stderr


def test_gradio_is_optional():
    code = (
        'import runpy, sys\n'
        "sys.modules['gradio'] = None\nsys.argv = ['page', '--model', "
        "'x']\nrunpy.run_module('projects.demo_page', run_name='__main__')\n"
    )
    done = subprocess.run(
        [sys.executable, '-c', code], cwd=ROOT, env=ENV, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert 'the page needs Gradio; install it with' in done.stderr
