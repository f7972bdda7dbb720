import json
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModel, Dinov2Model, Dinov2WithRegistersModel

from kpu_mm.weights.pretrained import load_transformers
from kpu_mm.weights.state_dict import load_state


@pytest.fixture
def copied(dinov2_dir, tmp_path):
    return Path(shutil.copytree(dinov2_dir, tmp_path / 'copy'))


@torch.no_grad()
@pytest.mark.parametrize('cls', [Dinov2Model, AutoModel])
def test_loads_frozen_float32(cls, dinov2_dir):
    model = load_transformers(cls, dinov2_dir)
    x = torch.randn(1, 3, 56, 56)
    expected = Dinov2Model.from_pretrained(dinov2_dir)(x)
    assert torch.equal(model(x).last_hidden_state, expected.last_hidden_state)
    assert not model.training
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert not any(p.requires_grad for p in model.parameters())


def test_half_files_become_float32(copied):
    Dinov2Model.from_pretrained(copied).half().save_pretrained(copied)
    model = load_transformers(Dinov2Model, copied)
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_never_random(copied):
    path = copied / 'model.safetensors'
    state = load_file(path)
    del state['layernorm.weight'], state['embeddings.mask_token']
    state['layernorm.bias'] = torch.zeros(3)
    save_file(state, path)
    with pytest.raises(RuntimeError) as info:
        load_transformers(Dinov2Model, copied, may_miss=('mask_token',))
    message = str(info.value)
    for part in (str(copied), 'layernorm.weight', 'layernorm.bias'):
        assert part in message
    assert 'mask_token' not in message


def test_may_miss_what_is_not_used(copied):
    path = copied / 'model.safetensors'
    state = load_file(path)
    del state['embeddings.mask_token']
    save_file(state, path)
    assert load_transformers(Dinov2Model, copied, may_miss=('mask_token',))
    with pytest.raises(RuntimeError, match='mask_token'):
        load_transformers(Dinov2Model, copied)


def test_refuses_another_kind(dinov2_reg_dir):
    # its weights would fill Dinov2Model but for the registers
    with pytest.raises(ValueError, match="needs 'dinov2'"):
        load_transformers(Dinov2Model, dinov2_reg_dir)
    assert load_transformers(Dinov2WithRegistersModel, dinov2_reg_dir)


def test_truncated_folder(copied):
    path = copied / 'model.safetensors'
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(RuntimeError, match='truncated or corrupt') as info:
        load_transformers(Dinov2Model, copied)
    assert str(copied) in str(info.value)


def test_broken_config(copied):
    (copied / 'config.json').write_text('{')
    with pytest.raises(RuntimeError, match='not valid JSON'):
        load_transformers(Dinov2Model, copied)


def test_never_trusts_remote_code(copied):
    config = json.loads((copied / 'config.json').read_text())
    config['auto_map'] = {'AutoModel': 'evil.Model'}
    (copied / 'config.json').write_text(json.dumps(config))
    (copied / 'evil.py').write_text('raise SystemExit')
    assert type(load_transformers(AutoModel, copied)) is Dinov2Model
    with pytest.raises(ValueError, match='trust_remote_code'):
        load_transformers(AutoModel, copied, trust_remote_code=True)


@pytest.mark.parametrize('name', ['w.safetensors', 'w.pth'])
@pytest.mark.parametrize('wrap', [None, 'state_dict', 'model'])
def test_load_state(name, wrap, tmp_path):
    state = nn.Linear(3, 2).state_dict()
    path = tmp_path / name
    if path.suffix == '.safetensors':
        save_file(state, path)
    else:
        torch.save({wrap: state, 'meta': {'epoch': 1}} if wrap else state, path)
    loaded = load_state(path)
    assert loaded.keys() == state.keys()
    assert all(torch.equal(loaded[key], state[key]) for key in state)


def test_reads_what_the_runner_saves(tmp_path):
    path = tmp_path / 'iter_1.pth'
    history = HistoryBuffer(np.ones(3), np.ones(3))
    state = nn.Linear(3, 2).state_dict()
    torch.save(
        dict(
            meta=dict(iter=1, seed=0),
            state_dict=state,
            message_hub=dict(log_scalars={'loss': history}),
        ),
        path,
    )
    assert load_state(path).keys() == state.keys()


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f'touch {self.path}',)


@pytest.mark.parametrize('write', [torch.save, None])
def test_never_runs_code(write, tmp_path):
    flag, path = tmp_path / 'flag', tmp_path / 'evil.pth'
    content = dict(state_dict=dict(a=torch.ones(1)), other=Evil(flag))
    if write is None:
        path.write_bytes(pickle.dumps(Evil(flag)))
    else:
        write(content, path)
    with pytest.raises(RuntimeError, match='could run code'):
        load_state(path)
    assert not flag.exists()


@pytest.mark.parametrize('name', ['w.safetensors', 'w.pth', 'old.pth'])
@pytest.mark.parametrize('share', [0.0, 0.02, 0.3, 0.99])
def test_truncated_file(name, share, tmp_path):
    path = tmp_path / name
    state = nn.Linear(30, 20).state_dict()
    if path.suffix == '.safetensors':
        save_file(state, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=name != 'old.pth')
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(RuntimeError, match='corrupt') as info:
        load_state(path)
    assert str(path) in str(info.value)


def test_file_without_weights(tmp_path):
    path = tmp_path / 'w.pth'
    for content in ({}, [torch.ones(1)], dict(epoch=1)):
        torch.save(content, path)
        with pytest.raises(RuntimeError, match='holds no weights'):
            load_state(path)
    with pytest.raises(FileNotFoundError, match=r'gone\.pth. does not exist'):
        load_state('gone.pth')
