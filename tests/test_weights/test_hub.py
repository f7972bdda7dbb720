import json
import time
from pathlib import Path

import pytest
from huggingface_hub import constants

from kpu_mm.weights import hub

VARIABLES = ('HF_HUB_OFFLINE', 'TRANSFORMERS_OFFLINE')


@pytest.fixture
def online(monkeypatch, tmp_path):
    """Not offline, but with a hub at a closed port and an empty cache."""
    for name in (*VARIABLES, 'http_proxy', 'HTTP_PROXY', 'all_proxy'):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', False)
    monkeypatch.setattr(constants, 'ENDPOINT', 'http://127.0.0.1:9')
    return tmp_path


@pytest.mark.parametrize('variable', VARIABLES)
def test_offline_says_what_to_put_where(variable, monkeypatch):
    monkeypatch.setenv(variable, '1')  # after the library was imported
    with pytest.raises(FileNotFoundError) as info:
        hub.fetch_folder('org/no-such-model')
    message = str(info.value)
    for part in ('config.json', 'model.safetensors', '`source`', 'unset'):
        assert part in message
    assert '\n' not in message


def test_unreachable_hub_takes_no_minutes(online):
    start = time.perf_counter()
    with pytest.raises(FileNotFoundError, match=r'127\.0\.0\.1:9 cannot'):
        hub.fetch_folder('org/no-such-model')
    with pytest.raises(FileNotFoundError, match='pass its local path'):
        hub.fetch_file('org/no-such-model', 'model.safetensors')
    assert time.perf_counter() - start < 5


def test_folders(dinov2_dir, tmp_path):
    assert hub.fetch_folder(dinov2_dir) == dinov2_dir
    with pytest.raises(FileNotFoundError, match='is not a saved model'):
        hub.fetch_folder(tmp_path)
    with pytest.raises(FileNotFoundError, match='does not exist; put config'):
        hub.fetch_folder(str(tmp_path / 'gone'))


def fake_cache(root: Path, repo: str, *names: str) -> Path:
    """The hub's own layout of a cached model."""
    folder = root / f'models--{repo.replace("/", "--")}'
    snapshot = folder / 'snapshots' / ('a' * 40)
    snapshot.mkdir(parents=True)
    (folder / 'refs').mkdir()
    (folder / 'refs' / 'main').write_text('a' * 40)
    for name in names:
        (snapshot / name).write_text('{}')
    return snapshot


def test_whole_cache_needs_no_hub(online, monkeypatch):
    parts = [f'model-0000{i}-of-00002.safetensors' for i in (1, 2)]
    index = 'model.safetensors.index.json'
    snapshot = fake_cache(online, 'org/model', 'config.json', *parts)
    for folder in (snapshot, fake_cache(online, 'org/half', 'config.json', parts[0])):
        (folder / index).write_text(
            json.dumps(dict(weight_map=dict(zip('ab', parts, strict=True))))
        )
    whole = hub.snapshot_download
    monkeypatch.setattr(hub, 'snapshot_download', lambda *a, **k: whole(*a, **k, cache_dir=online))
    assert hub.fetch_folder('org/model') == snapshot
    # a download that was interrupted
    with pytest.raises(FileNotFoundError, match=r"'org/half'.*not in the"):
        hub.fetch_folder('org/half')
    (snapshot / index).write_text('{}')
    with pytest.raises(RuntimeError, match=r'index\.json. is corrupt'):
        hub.fetch_folder(snapshot)
