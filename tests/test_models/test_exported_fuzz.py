"""Damaged exported folders: one sentence, or the very same student."""

import copy
import json
import random
import shutil

import pytest
import torch

from kpu_mm.export import read_student, write_student
from kpu_mm.models.student import load_student

FILES = (
    'config.json',
    'model.safetensors',
    'projectors.safetensors',
    'sentinel/config.json',
    'sentinel/model.safetensors',
)
KINDS = ('delete', 'nest', 'rename', 'change', 'retype')
OTHERS = (None, True, -1, 0, 3, 1 << 40, 0.5, float('nan'), '', 'x', [], {})


@pytest.fixture(scope='module')
def exported(distilled, tmp_path_factory):
    folder = tmp_path_factory.mktemp('fuzz') / 'student'
    return write_student(read_student(distilled[0], distilled[1]), folder)


@pytest.fixture(scope='module')
def expected(exported):
    return outputs(load_student(exported))


@torch.no_grad()
def outputs(student):
    images = torch.linspace(0, 255, 3 * 64 * 64).view(1, 3, 64, 64)
    backbone = student.backbone
    found = backbone.encode(images)
    tensors = [found.summary, *found.maps]
    for name in sorted(student.links):
        summary, maps, _ = student.link(name).infer(found, (64, 64))
        tensors += [summary, *maps]
    return tensors


def check(folder, expected, names):
    """Refused in a sentence that names a file, or unchanged."""
    try:
        student = load_student(folder)
    except (RuntimeError, FileNotFoundError) as error:
        said = str(error)
        assert any(name in said for name in names), said
        assert len(said.splitlines()) == 1 and len(said) < 1500, said
        return True
    for ours, theirs in zip(outputs(student), expected, strict=True):
        assert torch.equal(ours, theirs)
    return False


def places(value, path=()):
    """Keys of all values in JSON."""
    if path:
        yield path
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, inner in items:
            yield from places(inner, (*path, key))


def mutate(config, path, kind, rng):
    *parents, key = path
    owner = config
    for parent in parents:
        owner = owner[parent]
    old = owner[key]
    if kind == 'delete':
        del owner[key]
    elif kind == 'nest':
        owner[key] = {'value': old} if rng.random() < 0.5 else [old]
    elif kind == 'change' and type(old) in (int, float):
        owner[key] = old + 1
    elif kind == 'rename' and isinstance(owner, dict):
        owner[f'{key}_'] = owner.pop(key)
    else:
        others = [v for v in OTHERS if type(v) is not type(old)]
        owner[key] = rng.choice(others)


@pytest.mark.parametrize('kind', KINDS)
def test_each_key_of_the_config(exported, expected, tmp_path, kind):
    rng = random.Random(kind)
    folder = shutil.copytree(exported, tmp_path / 'student')
    config = json.loads((folder / 'config.json').read_text())
    refused = 0
    paths = list(places(config))
    for path in paths:
        changed = copy.deepcopy(config)
        mutate(changed, path, kind, rng)
        (folder / 'config.json').write_text(json.dumps(changed))
        refused += check(folder, expected, ['config.json'])
    assert refused > len(paths) / 2


def test_each_key_of_the_sentinel_s_config(exported, expected, tmp_path):
    """Its checksum is that of the whole file."""
    folder = shutil.copytree(exported, tmp_path / 'student')
    path = folder / 'sentinel' / 'config.json'
    config = json.loads(path.read_text())
    for key in config:
        path.write_text(json.dumps({k: config[k] for k in config if k != key}))
        assert check(folder, expected, ['sentinel/config.json'])


@pytest.mark.parametrize('name', FILES)
def test_damaged_bytes(exported, expected, tmp_path, name):
    rng = random.Random(name)
    folder = shutil.copytree(exported, tmp_path / 'student')
    whole = (exported / name).read_bytes()
    for _ in range(12):
        damaged = bytearray(whole)
        kind = rng.choice(['truncate', 'flip', 'zero', 'empty', 'double'])
        at = rng.randrange(len(whole))
        if kind == 'truncate':
            damaged = damaged[:at]
        elif kind == 'flip':
            damaged[at] ^= 1 << rng.randrange(8)
        elif kind == 'zero':
            damaged[at : at + 64] = bytes(len(damaged[at : at + 64]))
        elif kind == 'double':
            damaged = damaged * 2
        else:
            damaged = bytearray()
        (folder / name).write_bytes(damaged)
        check(folder, expected, [name, 'sentinel', 'config.json'])
    (folder / name).unlink()
    assert check(folder, expected, [name.rpartition('/')[2]])


@pytest.mark.parametrize('depth', [300, 900, 100_000])
def test_deep_config(exported, expected, tmp_path, depth):
    folder = shutil.copytree(exported, tmp_path / 'student')
    deep = '[' * depth + ']' * depth
    (folder / 'config.json').write_text(f'{{"backbone": {{"a": {deep}}}}}')
    assert check(folder, expected, ['config.json'])
