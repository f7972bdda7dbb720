from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

REPOSITORY = Path(__file__).parents[2]
TOOL = REPOSITORY / 'tools' / 'dataset_tools' / 'make_shards.py'


@pytest.fixture
def start(tmp_path):
    """Start the tool on 600 images, 20 a shard."""
    root = tmp_path / 'images'
    root.mkdir()
    rng = np.random.default_rng(0)
    for i in range(600):
        pixels = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / f'{i:03d}.jpg')
    (root / '077.jpg').write_bytes(b'')

    def run(folder, *options):
        path = os.pathsep.join([str(REPOSITORY), *sys.path])
        return subprocess.Popen(
            [sys.executable, str(TOOL), *options]
            + ([] if '--verify' in options else [str(root)])
            + [str(tmp_path / folder), '--images-per-shard=20']
            + [f'--cache-dir={tmp_path / "cache"}'],
            env=os.environ | {'PYTHONPATH': path},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    return run


def content(folder):
    return {p.name: p.read_bytes() for p in folder.glob('shard-*.tar')}


def test_killed_run_goes_on_and_verifies(start, tmp_path):
    whole = start('whole')
    assert '599 images in 30 shards, 1 left out' in whole.communicate()[0]
    assert whole.returncode == 0

    out = tmp_path / 'out'
    killed = start('out')
    while len(list(out.glob('shard-*.json'))) < 3:
        assert killed.poll() is None
        time.sleep(0.005)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    # The orphan ends with the shard it is at.
    time.sleep(0.5)
    finished = {p: p.stat().st_mtime_ns for p in out.glob('shard-*.json')}
    assert 3 <= len(finished) < 30
    (out / 'shard-000029.tar.1.tmp').write_bytes(b'left by a dead run')
    newest = max(finished)
    newest.with_suffix('.tar').write_bytes(b'lost its end')

    resumed = start('out', '--workers=2')
    text = resumed.communicate()[0]
    assert f'{len(finished) - 1} shards are finished' in text
    assert '599 images in 30 shards, 1 left out' in text
    assert 'eta' in text
    for path, modified in finished.items():
        assert (path.stat().st_mtime_ns == modified) == (path != newest)
    assert content(out) == content(tmp_path / 'whole')
    assert not list(out.glob('*.tmp'))

    good = start('out', '--verify')
    assert '30 shards, 0 faulty' in good.communicate()[0]
    assert good.returncode == 0
    (out / 'shard-000004.tar').unlink()
    bad = start('out', '--verify')
    assert 'shard-000004.tar: it is missing' in bad.communicate()[0]
    assert bad.returncode == 1


def test_bad_input_is_one_sentence(start, tmp_path):
    run = subprocess.run(
        [sys.executable, TOOL, tmp_path / 'nothing', tmp_path / 'out'],
        env=os.environ | {'PYTHONPATH': str(REPOSITORY)},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 1
    (line,) = run.stderr.strip().splitlines()[-1:]
    assert 'nothing' in line and 'does not exist' in line
    assert 'Traceback' not in run.stderr
