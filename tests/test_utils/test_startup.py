import subprocess
import sys
import warnings
from importlib.metadata import PackageNotFoundError

import pytest
from mmengine.config import Config
from mmengine.config.utils import MODULE2PACKAGE

import kpu_mm
from kpu_mm.utils import startup

GOOD = {
    'torch': '2.10.0+cu128',
    'transformers': '4.57.6',
    'onedl-mmengine': '0.10.12',
    'onedl-mmcv': '2.3.6',
    'opencv-python': '4.12.0.88',
}


@pytest.fixture
def pretend(monkeypatch):
    """Replace what is installed."""

    def install(**changes):
        there = GOOD | {k.replace('_', '-'): v for k, v in changes.items()}

        def version(name):
            if there.get(name) is None:
                raise PackageNotFoundError(name)
            return there[name]

        monkeypatch.setattr(startup, 'version', version)
        monkeypatch.setattr(startup, 'find_spec', lambda name: None)

    return install


@pytest.mark.parametrize('torch', ['2.6', '2.6.0rc1', '2.13.0.dev20260101'])
def test_other_spellings_of_a_version_pass(pretend, torch):
    pretend(torch=torch)
    startup.check_versions()


def test_nonsense_is_no_version(pretend):
    pretend(torch='main')
    with pytest.raises(ValueError, match="'main'"):
        startup.check_versions()


def test_good_versions_pass_silently(pretend):
    pretend()
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        startup.check_versions()


def test_originals_pass(pretend):
    pretend(onedl_mmengine=None, onedl_mmcv=None, mmengine='0.10.7', mmcv='2.1')
    startup.check_versions()


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (
            {'torch': '2.5.1'},
            'kpu_mm needs torch >= 2.6, but torch 2.5.1 is installed: run '
            "`pip install --upgrade 'torch>=2.6'`.",
        ),
        (
            {'onedl_mmcv': None},
            'kpu_mm needs mmcv >= 2.0.0, and it is not installed: run '
            '`pip install --no-deps onedl-mmcv==2.3.6`.',
        ),
        (
            {'opencv_python': None},
            'kpu_mm needs cv2 >= 4.0, and it is not installed: run '
            '`pip install opencv-python-headless==4.12.0.88`.',
        ),
        # the original is upgraded, never covered by the other distribution
        (
            {'onedl_mmengine': None, 'mmengine': '0.7.1'},
            'kpu_mm needs mmengine >= 0.10.0, but mmengine 0.7.1 is '
            "installed: run `pip install --upgrade 'mmengine>=0.10.0'`.",
        ),
        (
            {'transformers': '4.55.4'},
            'kpu_mm needs transformers >= 4.56, but transformers 4.55.4 is '
            "installed: run `pip install --upgrade 'transformers>=4.56'`.",
        ),
    ],
)
def test_missing_or_old_library(pretend, changes, message):
    pretend(**changes)
    with pytest.raises(ImportError) as caught:
        startup.check_versions()
    assert str(caught.value) == message


def test_source_tree_without_metadata_passes(pretend, monkeypatch):
    pretend(onedl_mmengine=None)
    monkeypatch.setattr(startup, 'find_spec', lambda name: object())
    startup.check_versions()


@pytest.mark.parametrize('bad', ['3.4.6', '3.5.0', '3.5.1'])
def test_known_bad_mmdet_warns(pretend, bad):
    pretend(onedl_mmdetection=bad)
    with pytest.warns(UserWarning, match='onedl-mmdetection==3.4.5'):
        startup.check_versions()


@pytest.mark.parametrize('good', ['3.4.5', '3.5.2', '4.0.0'])
def test_other_mmdet_is_silent(pretend, good):
    pretend(onedl_mmdetection=good)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        startup.check_versions()


def test_transformers_5_warns_only_beside_mmpretrain(pretend):
    pretend(transformers='5.1.0')
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        startup.check_versions()
    pretend(transformers='5.1.0', onedl_mmpretrain='1.3.6')
    with pytest.warns(UserWarning, match='transformers>=4.56,<5'):
        startup.check_versions()


def test_import_is_light():
    code = (
        'import sys, kpu_mm\n'
        'heavy = ("transformers", "open_clip", "mmcv", "mmdet", '
        '"mmengine.runner", "kpu_mm.models", "kpu_mm.datasets")\n'
        'print([name for name in heavy if name in sys.modules])'
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.stdout == '[]\n', done.stderr


def test_what_waits_for_a_module_runs_once(tmp_path, monkeypatch):
    (tmp_path / 'late_module.py').write_text('value = 1')
    monkeypatch.syspath_prepend(tmp_path)
    ran = []
    startup.after_import('late_module', lambda: ran.append(sys.modules['late_module'].value))
    assert not ran
    import late_module

    assert ran == [1]
    startup.after_import('late_module', lambda: ran.append(2))
    assert ran == [1, 2]
    monkeypatch.delitem(sys.modules, 'late_module')
    import late_module  # noqa: F401, F811

    assert ran == [1, 2]


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
        startup, 'installed', lambda *names: (names[0], None) if names[0] in there else None
    )
    startup.register_config_scope()
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
