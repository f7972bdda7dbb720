import subprocess
import sys
import warnings
from importlib.metadata import PackageNotFoundError

import pytest

from kpu_mm.utils import versions

GOOD = {
    'torch': '2.10.0+cu128',
    'transformers': '4.57.6',
    'onedl-mmengine': '0.10.12',
    'onedl-mmcv': '2.3.6',
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

        monkeypatch.setattr(versions, 'version', version)
        monkeypatch.setattr(versions, 'find_spec', lambda name: None)

    return install


@pytest.mark.parametrize(
    ('text', 'numbers'),
    [
        ('2.10.0+cu128', (2, 10, 0)),
        ('2.4', (2, 4, 0)),
        ('2.4.0rc1', (2, 4, 0)),
        ('2.13.0.dev20260101', (2, 13, 0)),
    ],
)
def test_release(text, numbers):
    assert versions.release(text) == numbers


def test_release_of_nonsense():
    with pytest.raises(ValueError, match="'main' is not a version"):
        versions.release('main')


def test_good_versions_pass_silently(pretend):
    pretend()
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        versions.check_versions()


def test_originals_pass(pretend):
    pretend(
        onedl_mmengine=None, onedl_mmcv=None, mmengine='0.10.7', mmcv='2.1'
    )
    versions.check_versions()


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (
            {'torch': '2.3.1'},
            'kpu_mm needs torch >= 2.4, but torch 2.3.1 is installed: run '
            "`pip install --upgrade 'torch>=2.4'`.",
        ),
        (
            {'onedl_mmcv': None},
            'kpu_mm needs mmcv >= 2.0.0, and it is not installed: run '
            '`pip install onedl-mmcv==2.3.6`.',
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
        versions.check_versions()
    assert str(caught.value) == message


def test_source_tree_without_metadata_passes(pretend, monkeypatch):
    pretend(onedl_mmengine=None)
    monkeypatch.setattr(versions, 'find_spec', lambda name: object())
    versions.check_versions()


@pytest.mark.parametrize('bad', ['3.4.6', '3.5.0', '3.5.1'])
def test_known_bad_mmdet_warns(pretend, bad):
    pretend(onedl_mmdetection=bad)
    with pytest.warns(UserWarning, match='onedl-mmdetection==3.4.5'):
        versions.check_versions()


@pytest.mark.parametrize('good', ['3.4.5', '3.5.2', '4.0.0'])
def test_other_mmdet_is_silent(pretend, good):
    pretend(onedl_mmdetection=good)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        versions.check_versions()


def test_transformers_5_warns_only_beside_mmpretrain(pretend):
    pretend(transformers='5.1.0')
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        versions.check_versions()
    pretend(transformers='5.1.0', onedl_mmpretrain='1.3.6')
    with pytest.warns(UserWarning, match='transformers>=4.56,<5'):
        versions.check_versions()


def test_import_is_light():
    code = (
        'import sys, kpu_mm\n'
        'heavy = ("transformers", "open_clip", "mmcv", "mmdet", '
        '"mmengine.runner", "kpu_mm.models", "kpu_mm.datasets")\n'
        'print([name for name in heavy if name in sys.modules])'
    )
    done = subprocess.run(
        [sys.executable, '-c', code], capture_output=True, text=True
    )
    assert done.stdout == '[]\n', done.stderr
