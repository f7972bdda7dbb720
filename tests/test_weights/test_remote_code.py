"""Models that bring their own code: never run, and never asked about."""

import builtins
import json
import shutil

import pytest

from kpu_mm.models.teachers import (
    CLIPTeacher,
    DINOTeacher,
    GroundingDINOTeacher,
    TimmTeacher,
    TransformersTeacher,
)
from kpu_mm.models.zero_shot import FlorenceDetector

TEACHERS = {
    'dino': ('dinov2_dir', DINOTeacher),
    'transformers': ('dinov2_dir', TransformersTeacher),
    'grounding_dino': (
        'grounding_dino_dir',
        lambda folder: GroundingDINOTeacher(folder, with_text=True).processor(),
    ),
    'florence': ('florence_dir', FlorenceDetector),
    'clip': (
        'siglip_text_dir',
        lambda folder: CLIPTeacher(f'local-dir:{folder}', with_text=True).tokenizer(),
    ),
}
MAP = {
    name: f'code.{name}'
    for name in ('AutoConfig', 'AutoModel', 'AutoImageProcessor', 'AutoProcessor')
}
MAP['AutoTokenizer'] = ['code.Slow', 'code.Fast']


@pytest.fixture
def model_with_code(request, tmp_path):
    """A copy of a model whose files all point to a module of its own."""

    def build(fixture, model_type=None):
        folder = tmp_path / 'model'
        shutil.copytree(request.getfixturevalue(fixture), folder)
        (folder / 'code.py').write_text(
            f'import pathlib\npathlib.Path({str(tmp_path / "run")!r}).touch()'
        )
        for path in folder.glob('*config.json'):
            content = json.loads(path.read_text())
            content['auto_map'] = MAP
            if model_type and 'model_type' in content:
                content['model_type'] = model_type
            path.write_text(json.dumps(content))
        return folder

    return build


@pytest.mark.parametrize('model_type', [None, 'unheard_of'])
@pytest.mark.parametrize('name', TEACHERS)
def test_never_run_never_asked(model_with_code, monkeypatch, tmp_path, name, model_type):
    def ask(*_):
        pytest.fail('asked on stdin')

    monkeypatch.setattr(builtins, 'input', ask)
    fixture, build = TEACHERS[name]
    folder = model_with_code(fixture, model_type)
    try:
        build(str(folder))
    except (FileNotFoundError, RuntimeError, ValueError) as error:
        said = str(error)
        assert len(said.splitlines()) == 1 and str(folder) in said
    assert not (tmp_path / 'run').exists()


def test_open_clip_s_config_cannot_allow_it(siglip_text_dir, tmp_path):
    folder = shutil.copytree(siglip_text_dir, tmp_path / 'clip')
    path = folder / 'open_clip_config.json'
    config = json.loads(path.read_text())
    text = config['model_cfg']['text_cfg']
    text['tokenizer_kwargs'] = dict(trust_remote_code=True)
    path.write_text(json.dumps(config))
    with pytest.raises(ValueError, match='sets trust_remote_code'):
        CLIPTeacher(f'local-dir:{folder}', with_text=True)


def test_adapters_and_timm_options_load_nothing(dinov2_dir, tmp_path):
    folder = shutil.copytree(dinov2_dir, tmp_path / 'model')
    adapter = dict(base_model_name_or_path='someone/model')
    (folder / 'adapter_config.json').write_text(json.dumps(adapter))
    with pytest.raises(RuntimeError, match='holds an adapter'):
        DINOTeacher(str(folder))
    with pytest.raises(ValueError, match='use checkpoint instead'):
        TimmTeacher('test_vit', options=dict(checkpoint_path='x.pth'))
