import pytest
from mmengine.config import Config
from mmengine.config.utils import MODULE2PACKAGE

import kpu_mm
from kpu_mm.utils import config_scope


def test_scope_is_known_after_import():
    assert MODULE2PACKAGE['kpu_mm'] == 'kpu_mm'


@pytest.mark.parametrize(
    ('there', 'package'),
    [
        ({'onedl-mmsegmentation'}, 'mmseg'),
        ({'mmsegmentation'}, 'mmsegmentation'),
        ({'mmsegmentation', 'onedl-mmsegmentation'}, 'mmsegmentation'),
        (set(), 'mmsegmentation'),
    ],
)
def test_mmseg_is_looked_up_where_it_is(monkeypatch, there, package):
    monkeypatch.setitem(MODULE2PACKAGE, 'mmseg', 'mmsegmentation')
    monkeypatch.setattr(
        config_scope,
        'installed',
        lambda names: (names[0], '1.2.2') if names[0] in there else None,
    )
    config_scope.register_config_scope()
    assert MODULE2PACKAGE['mmseg'] == package


def test_base_of_an_unknown_config():
    with pytest.raises(FileNotFoundError, match=r"no config 'distill/no\.py'"):
        kpu_mm.base('distill/no.py')


@pytest.mark.parametrize('name', ['config.yaml', 'config.yml'])
def test_yaml_builds_no_objects(tmp_path, name):
    path = tmp_path / name
    path.write_text('model: {type: a, sizes: [1, 2.5]}\n')
    assert Config.fromfile(path).model == dict(type='a', sizes=[1, 2.5])
    marker = tmp_path / 'marker'
    path.write_text(f'a: !!python/object/apply:os.mkdir ["{marker}"]\n')
    for wrong in (path, tmp_path / 'over.yaml'):
        (tmp_path / 'over.yaml').write_text(f'_base_: {path}\n')
        with pytest.raises(ValueError, match='no Python objects'):
            Config.fromfile(wrong)
    assert not marker.exists()
