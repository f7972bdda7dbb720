"""Exported folders that try to run code, through whatever reads one."""

import json
import shutil

import pytest
from mmengine.config import Config

from kpu_mm.apis import (
    FeatureInferencer,
    ZeroShotClassificationInferencer,
    ZeroShotDetectionInferencer,
    ZeroShotSegmentationInferencer,
)
from kpu_mm.export import write_student
from kpu_mm.models.backbones import load_exported
from kpu_mm.models.student import load_student, open_student, read_teachers
from kpu_mm.models.teachers import MMTeacher, TeacherBank
from kpu_mm.models.vits import TransformersViT
from kpu_mm.models.zero_shot import ProjectedBackbone
from tests.runs import refusal_of

PAYLOAD = 'from pathlib import Path\nPath({!r}).touch()\nregistry = 1\n'


@pytest.fixture(scope='module')
def exported(zero_shot_run, tmp_path_factory):
    folder = tmp_path_factory.mktemp('attacks') / 'student'
    return write_student(open_student(zero_shot_run / 'iter_1.pth'), folder)


@pytest.fixture
def marker(tmp_path, monkeypatch):
    """A file that exists once ``payload`` was imported, or run as config."""
    path = tmp_path / 'code_was_run'
    package = tmp_path / 'lib' / 'payload'
    package.mkdir(parents=True)
    for name in ('__init__', 'registry'):
        (package / f'{name}.py').write_text(PAYLOAD.format(str(path)))
    monkeypatch.syspath_prepend(tmp_path / 'lib')
    return path


@pytest.fixture
def change(exported, tmp_path):
    """A copy of the folder with another config.json."""

    def write(edit):
        folder = shutil.copytree(exported, tmp_path / 'student')
        config = json.loads((folder / 'config.json').read_text())
        edit(config)
        (folder / 'config.json').write_text(json.dumps(config))
        return folder

    return write


def type_of_backbone(config):
    config['backbone']['type'] = 'payload.Backbone'


def bare_type_of_backbone(config):
    config['backbone']['type'] = 'payload'


def type_of_norm(config):
    config['backbone']['norm_cfg'] = dict(type='payload.Norm')


def init_cfg(config):
    config['backbone']['init_cfg'] = dict(type='payload.Init')


def type_of_teachers(config):
    for teacher in config['teachers'].values():
        teacher['config']['type'] = 'payload.Teacher'


def config_file_of_teachers(config):
    for teacher in config['teachers'].values():
        teacher['config'] = dict(
            type='kpu_mm.MMTeacher', config='payload/__init__.py', checkpoint='none.pth'
        )


def content_of_teachers(config):
    for teacher in config['teachers'].values():
        teacher['config'] = dict(
            type='kpu_mm.MMTeacher',
            config=dict(model=dict(backbone=dict(type='payload'))),
            checkpoint='none.pth',
        )


EDITS = [
    type_of_backbone,
    bare_type_of_backbone,
    type_of_norm,
    init_cfg,
    type_of_teachers,
    config_file_of_teachers,
    content_of_teachers,
]
READERS = {
    'load_student': load_student,
    'open_student': open_student,
    'read_teachers': read_teachers,
    'load_exported': load_exported,
    'zero_shot': lambda folder: ProjectedBackbone(folder, 'clip'),
    'features': FeatureInferencer,
    'features_of_teacher': lambda folder: FeatureInferencer(
        folder, encoder='teacher', teacher='clip'
    ),
    'classify': ZeroShotClassificationInferencer,
    'segment': ZeroShotSegmentationInferencer,
    'detect': ZeroShotDetectionInferencer,
}


@pytest.mark.parametrize('reader', READERS)
@pytest.mark.parametrize('edit', EDITS, ids=lambda edit: edit.__name__)
def test_nothing_named_in_the_folder_is_run(change, marker, edit, reader):
    folder = change(edit)
    with pytest.raises(RuntimeError, match=r'config\.json.*(must|no argument)'):
        READERS[reader](folder)
    assert not marker.exists()


@pytest.mark.parametrize('edit', EDITS, ids=lambda edit: edit.__name__)
def test_tools_refuse_it_too(change, marker, edit, monkeypatch, capsys):
    folder = change(edit)
    command = ['features', 'x.png', '--model', folder]
    said = refusal_of('demo.py', command, monkeypatch, capsys)
    assert 'config.json' in said and not marker.exists()


def test_zero_shot_config_refuses_it(change, marker, labeled, monkeypatch, capsys, tmp_path):
    folder = change(type_of_norm)
    cfg = Config.fromfile('configs/zero_shot/ade20k/kpu-vitb.py')
    cfg.model.backbone.source = str(folder)
    cfg.dump(tmp_path / 'zero_shot.py')
    command = [tmp_path / 'zero_shot.py', 'none', '--work-dir', tmp_path]
    said = refusal_of('test.py', command, monkeypatch, capsys)
    assert 'config.json' in said and not marker.exists()


def test_unregistered_teacher_of_a_plain_name(change, marker):
    """A name that could be one of ours; whoever builds it refuses."""

    def edit(config):
        config['teachers']['clip']['config'] = dict(type='payload')

    folder = change(edit)
    teachers = load_student(folder).teachers
    for build in (
        lambda: TeacherBank(teachers),
        lambda: read_teachers(folder),
        lambda: ZeroShotClassificationInferencer(folder),
    ):
        with pytest.raises((RuntimeError, ValueError), match='teacher'):
            build()
    assert not marker.exists()


def test_models_of_mm_teacher_come_from_files(marker):
    """MMEngine would import what the types in a dict spell."""
    images = dict(mean=[0.0] * 3, std=[1.0] * 3)
    model = dict(backbone=dict(type='payload.B'), data_preprocessor=images)
    with pytest.raises(ValueError, match='must be a file or a name'):
        MMTeacher(dict(model=model, default_scope='payload'), 'none.pth')
    assert not marker.exists()


@pytest.mark.parametrize('path', ['/etc', '../other', 'sentinel/../..', '.'])
def test_sentinel_lies_in_the_folder(change, path):
    folder = change(lambda config: config['backbone'].update(sentinel=path))
    with pytest.raises(RuntimeError, match=r"sentinel must be 'sentinel'"):
        load_exported(folder)


def test_missing_sentinel_is_not_sought_on_the_hub(change, monkeypatch):
    folder = change(lambda config: None)
    shutil.rmtree(folder / 'sentinel')
    monkeypatch.chdir(folder.parent)
    with pytest.raises(FileNotFoundError, match="no folder 'sentinel'"):
        load_exported(folder.name)


@pytest.mark.parametrize(
    'values',
    [
        dict(auto_map=dict(AutoModel='payload--code.Model')),
        dict(quantization_config=dict(quant_method='mxfp4')),
        dict(attn_implementation='someone/kernels'),
        dict(model_type='payload', auto_map=dict(AutoConfig='code.Config')),
    ],
    ids=str,
)
def test_no_code_of_the_sentinel(exported, tmp_path, marker, values):
    sentinel = shutil.copytree(exported / 'sentinel', tmp_path / 'sentinel')
    (sentinel / 'code.py').write_text(PAYLOAD.format(str(marker)))
    path = sentinel / 'config.json'
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
    try:
        TransformersViT(str(sentinel))
    except (RuntimeError, ValueError) as error:
        said = str(error)
        assert len(said.splitlines()) == 1 and str(tmp_path) in said
    else:  # a map to code is passed over, not followed
        assert 'model_type' not in values and 'auto_map' in values
    assert not marker.exists()


def test_config_beside_a_checkpoint_is_not_run(zero_shot_run, tmp_path, marker):
    shutil.copy(zero_shot_run / 'iter_1.pth', tmp_path / 'iter_1.pth')
    (tmp_path / 'run.py').write_text('model = __import__("payload")\n')
    for read in (open_student, read_teachers, FeatureInferencer):
        with pytest.raises(FileNotFoundError, match='config if you trust it'):
            read(tmp_path / 'iter_1.pth')
    assert not marker.exists()
