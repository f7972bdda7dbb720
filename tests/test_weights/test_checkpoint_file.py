import os
import random
import subprocess
import sys
import zipfile

import pytest
import torch
from mmengine.runner.checkpoint import CheckpointLoader, _load_checkpoint, load_checkpoint
from torch import nn

import kpu_mm  # noqa: F401  (guards MMEngine's loaders)
from kpu_mm.weights.checkpoint_file import find_fault, read_checkpoint

ATTACK = """
import sys
from pathlib import Path
import torch
{imports}
{call}
"""
ENTRIES = {
    'reader': (
        'from kpu_mm.weights.checkpoint_file import read_checkpoint',
        'read_checkpoint(sys.argv[1])',
    ),
    'mmengine': (
        'import kpu_mm\nfrom mmengine.runner import load_checkpoint',
        'load_checkpoint(torch.nn.Linear(1, 1), sys.argv[1])',
    ),
    'mmengine-first': (
        'from mmengine.runner import load_checkpoint\nimport kpu_mm',
        'load_checkpoint(torch.nn.Linear(1, 1), sys.argv[1])',
    ),
    'init_cfg': (
        'import kpu_mm\nfrom mmengine.model import BaseModule',
        "BaseModule(dict(type='Pretrained', checkpoint=sys.argv[1])).init_weights()",
    ),
    'torch': ('import kpu_mm', 'torch.load(sys.argv[1], weights_only=False)'),
}


class Reached:
    """Pickles as a chain of getattr, as an attack would begin."""

    def __reduce__(self):
        return getattr, (HOLDER, 'touch')


class Touch:
    """Pickles as a call that leaves a mark."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), 'w')


HOLDER = torch.nn.Module


@pytest.mark.parametrize('entry', ENTRIES)
@pytest.mark.parametrize('payload', ['call', 'getattr'])
def test_nothing_in_a_checkpoint_runs(tmp_path, entry, payload):
    mark, path = tmp_path / 'mark', tmp_path / 'evil.pth'
    evil = Touch(mark) if payload == 'call' else Reached()
    torch.save(dict(state_dict=dict(a=torch.ones(1)), evil=evil), path)
    imports, call = ENTRIES[entry]
    done = subprocess.run(
        [sys.executable, '-c', ATTACK.format(imports=imports, call=call), str(path)],
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    assert not mark.exists()
    last = done.stderr.strip().splitlines()[-1]
    if entry != 'torch':
        assert 'evil.pth' in last
        assert 'could run code' in last
        # torch's own advice would run it
        assert 'weights_only=False' not in done.stderr


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Linear(30, 20)


def test_whole_files_are_read(tmp_path, model):
    for name, zipped in (('new.pth', True), ('old.pth', False)):
        path = tmp_path / name
        torch.save(dict(state_dict=model.state_dict()), path, _use_new_zipfile_serialization=zipped)
        for state in (read_checkpoint(path), _load_checkpoint(str(path))):
            for key, value in model.state_dict().items():
                assert torch.equal(state['state_dict'][key], value)
        assert ('before 1.6' in (find_fault(path) or '')) is not zipped


def test_damage_is_found_or_harmless(tmp_path, model):
    """Any damage gives one sentence, or exactly the same weights."""
    path, rng = tmp_path / 'a.pth', random.Random(7)
    torch.save(dict(state_dict=model.state_dict(), meta=dict(i=3)), path)
    whole, refused = path.read_bytes(), 0
    for round_ in range(300):
        data = bytearray(whole)
        if round_ % 3 == 0:
            data = data[: rng.randrange(len(data))]
        elif round_ % 3 == 1:
            for _ in range(rng.randrange(1, 5)):
                data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        else:
            start = rng.randrange(len(data))
            length = len(data[start : start + 400])
            data[start : start + 400] = bytes(length)
        path.write_bytes(data)
        try:
            found = read_checkpoint(path)
        except RuntimeError as error:
            refused += 1
            assert 'a.pth' in str(error)
            assert '\n' not in str(error)
            continue
        assert found['meta'] == dict(i=3)
        for key, value in model.state_dict().items():
            assert torch.equal(found['state_dict'][key], value)
    assert refused > 200


def test_other_files_are_named(tmp_path):
    path = tmp_path / 'a.pth'
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr('a.txt', 'text')
    with pytest.raises(RuntimeError, match='zip file, but no checkpoint'):
        CheckpointLoader.load_checkpoint(str(path))
    torch.jit.save(torch.jit.script(nn.Linear(1, 1)), path)
    with pytest.raises(RuntimeError, match='TorchScript'):
        load_checkpoint(nn.Linear(1, 1), str(path))
    path.write_bytes(os.urandom(1000))
    with pytest.raises(RuntimeError, match='no checkpoint of PyTorch'):
        read_checkpoint(path)
