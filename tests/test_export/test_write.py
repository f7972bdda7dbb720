import copy
import json
import shutil
import subprocess
import sys

import pytest
import torch
from mmengine.registry import MODELS
from safetensors.torch import load_file, save_file
from torch import nn

from kpu_mm.export import graphs, read_student, write_student
from kpu_mm.export.model_card import model_card
from kpu_mm.models.backbones import load_exported
from kpu_mm.models.projectors import MLPProjector
from kpu_mm.models.student import load_student
from kpu_mm.structures import Features


@pytest.fixture(scope='module')
def folder(distilled, tmp_path_factory):
    config, checkpoint, _ = distilled
    config = copy.deepcopy(config)
    for teacher in config['teachers'].values():
        teacher['source'] = '/not/on/this/machine'
    student = read_student(config, checkpoint)
    return write_student(student, tmp_path_factory.mktemp('out') / 'student')


@pytest.fixture(scope='module')
def images():
    return torch.rand(2, 3, 70, 96) * 255


@pytest.fixture(scope='module')
def expected(distilled, images):
    student = distilled[2].student
    with torch.no_grad():
        return student.encode(images)


def assert_equal(features, expected):
    assert torch.equal(features.summary, expected.summary)
    for got, wanted in zip(features.maps, expected.maps, strict=True):
        assert torch.equal(got, wanted)


def test_loads_to_the_same_features(folder, images, expected):
    student = load_exported(folder, out_indices=(2,))
    assert not student.training and student.out_channels == (48,)
    with torch.no_grad():
        assert_equal(student.encode(images), expected)


def test_loads_in_a_config(folder, images, expected):
    student = MODELS.build(
        dict(
            type='kpu_mm.KPUBackbone',
            sentinel=str(folder / 'sentinel'),
            inplanes=8,
            num_interactions=2,
            init_cfg=dict(type='Pretrained', checkpoint=str(folder / 'model.safetensors')),
        )
    )
    student.init_weights()
    with torch.no_grad():
        features = student.eval().encode(images)
    assert_equal(features, expected)


def test_projectors(folder, distilled, images, expected):
    links = load_student(folder).links
    assert set(links) == {'teacher', 'other'}
    for name, link in distilled[2].links.items():
        maps = tuple(expected.maps[level] for _, level in link.levels.pairs)
        features = Features(expected.summary, maps)
        with torch.no_grad():
            assert_equal(links[name].s2t(features), link.s2t(features))


class Sharp(MLPProjector):
    """With the weights of an MLPProjector, and another function."""

    def build(self, *args, **kwargs):
        mlp = super().build(*args, **kwargs)
        mlp[1] = nn.ReLU()
        return mlp


@pytest.mark.parametrize('kind', [Sharp, 'Unknown'])
def test_projectors_of_another_class_are_refused(kind, distilled):
    config = dict(distilled[0], projector=dict(type=kind, hidden=24))
    with pytest.raises(RuntimeError, match='only MLPProjectors can be exported'):
        read_student(config, distilled[1])


def test_config_and_card(folder, distilled):
    config = json.loads((folder / 'config.json').read_text())
    model = distilled[2]
    assert config['backbone']['sentinel'] == 'sentinel'
    assert config['backbone']['norm_cfg'] == dict(type='BN')
    assert config['sentinel']['sha256'] == model.student.sentinel.checksum()
    assert config['strides'] == [4, 8, 16, 32] and config['channels'] == 48
    assert config['input']['mean'] == [123.675, 116.28, 103.53]
    teacher = config['teachers']['teacher']
    assert teacher['summary_channels'] == 48
    pairs = model.links['teacher'].levels.pairs
    assert teacher['map_channels'] == [48] * len(pairs)
    assert teacher['pairs'] == [list(pair) for pair in pairs]
    assert teacher['strides'] == [14]
    card = (folder / 'README.md').read_text()
    assert config['sentinel']['sha256'] in card
    for file in folder.iterdir():
        assert f'`{file.name}' in card or file.name == 'README.md'


def test_the_card_s_backbone_gives_maps(folder):
    config = json.loads((folder / 'config.json').read_text())
    config['backbone']['out_type'] = 'features'
    card = model_card(config)
    assert 'inplanes=8' in card and 'out_type' not in card


def test_no_second_copy_of_the_sentinel(folder):
    state = load_file(folder / 'model.safetensors')
    assert not any(key.startswith('sentinel') for key in state)


def test_importing_backbones_leaves_training_out():
    code = (
        'import sys, kpu_mm.models.backbones\n'
        "bad = ('open_clip', 'kpu_mm.datasets', 'kpu_mm.engine', "
        "'kpu_mm.models.teachers', 'kpu_mm.models.kpu_distiller')\n"
        'assert not set(bad) & set(sys.modules), set(bad) & set(sys.modules)'
    )
    subprocess.run([sys.executable, '-c', code], check=True)


@pytest.mark.parametrize('frozen', ['sentinel', 'none'])
def test_another_sentinel_under_the_adapter(frozen, folder, tmp_path):
    shutil.copytree(folder, tmp_path / 'student')
    weights = tmp_path / 'student' / 'sentinel' / 'model.safetensors'
    state = load_file(weights)
    state['layernorm.weight'] += 1
    save_file(state, weights, metadata=dict(format='pt'))
    with pytest.raises(RuntimeError, match='trained with sentinel'):
        load_exported(tmp_path / 'student', frozen=frozen)


def test_failure_leaves_nothing_behind(distilled, tmp_path, monkeypatch):
    config, checkpoint, _ = distilled
    student = read_student(config, checkpoint)

    def fail(*_):
        raise RuntimeError('disk is full')

    monkeypatch.setattr('kpu_mm.export.write.model_card', fail)
    with pytest.raises(RuntimeError, match='disk is full'):
        write_student(student, tmp_path / 'out')
    assert not list(tmp_path.iterdir())


def test_refuses_a_folder_with_content(distilled, tmp_path):
    config, checkpoint, _ = distilled
    student = read_student(config, checkpoint)
    (tmp_path / 'precious.txt').write_text('')
    with pytest.raises(FileExistsError, match='not an empty folder'):
        write_student(student, tmp_path)


def test_a_wrong_graph_leaves_nothing_behind(distilled, tmp_path, monkeypatch):
    student = read_student(distilled[0], distilled[1])

    def wrong(*_):
        return lambda images: dict(summary=images)

    monkeypatch.setattr('kpu_mm.export.graphs.export_program', lambda _: None)
    monkeypatch.setitem(graphs.WRITERS, 'onnx', ('student.onnx', wrong))
    with pytest.raises(RuntimeError, match=r'student\.onnx gives'):
        write_student(student, tmp_path / 'out', formats=['onnx'])
    assert not list(tmp_path.iterdir())


def test_graphs_in_config_and_card(distilled, tmp_path, monkeypatch):
    student = read_student(distilled[0], distilled[1])

    def same(program, names, path):
        path.write_text(' '.join(names))
        return program

    monkeypatch.setattr('kpu_mm.export.graphs.export_program', lambda model: model)
    monkeypatch.setitem(graphs.WRITERS, 'onnx', ('student.onnx', same))
    with torch.no_grad():
        folder = write_student(student, tmp_path / 'out', ['onnx'], heads=['other'])
    stated = json.loads((folder / 'config.json').read_text())['graphs']
    assert stated['largest_differences'] == {'student.onnx': 0.0}
    assert stated['outputs']['other_map_0'] == 48
    card = (folder / 'README.md').read_text()
    assert 'onnxruntime.InferenceSession' in card and 'pt2' not in card
    assert '`other_map_0` 48' in card and '`student.onnx` 0.0e+00' in card


def test_refuses_formats_and_heads(distilled, tmp_path):
    student = read_student(distilled[0], distilled[1])
    with pytest.raises(ValueError, match=r"\['pt'\]: choose from"):
        write_student(student, tmp_path / 'out', formats=['pt'])
    with pytest.raises(ValueError, match=r"'clip'; it has those of \['other"):
        write_student(student, tmp_path / 'out', ['program'], heads=['clip'])
    with pytest.raises(ValueError, match='name formats too'):
        write_student(student, tmp_path / 'out', heads=['other'])


def test_says_what_to_install(distilled, tmp_path, monkeypatch):
    student = read_student(distilled[0], distilled[1])
    monkeypatch.setattr(
        'kpu_mm.export.write.find_spec', lambda name: None if 'runtime' in name else name
    )
    with pytest.raises(ModuleNotFoundError, match='install onnxruntime`'):
        write_student(student, tmp_path / 'out', formats=['onnx'])


@pytest.mark.parametrize('change', [lambda pairs: [], lambda pairs: [*pairs, pairs[0]]])
def test_level_maps_that_are_not_the_projectors(folder, tmp_path, change):
    path = shutil.copytree(folder, tmp_path / 'student') / 'config.json'
    config = json.loads(path.read_text())
    config['teachers']['other']['pairs'] = change(config['teachers']['other']['pairs'])
    path.write_text(json.dumps(config))
    with pytest.raises(RuntimeError, match=r'config\.json.*teachers\.other\.pairs must be'):
        load_student(path.parent)
