"""What `pip install` brings, tried outside of the clone."""

import ast
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
from importlib.metadata import version
from pathlib import Path

import pytest

from kpu_mm.models import DETECTION_PARTS

ROOT = Path(__file__).parents[1]
# what a clone holds and a build may read
SOURCES = (
    'CHANGELOG.md',
    'LICENSE',
    'MANIFEST.in',
    'Makefile',
    'README.md',
    'configs',
    'kpu_mm',
    'model-index.yml',
    'pyproject.toml',
    'requirements',
    'setup.py',
    'tools',
    'projects',
)
SHIPPED = sorted(
    path.relative_to(ROOT).as_posix()
    for folder in ('configs', 'tools', 'projects', 'requirements')
    for path in (ROOT / folder).rglob('*')
    if path.is_file() and '__pycache__' not in path.parts
)
# imported only if the user chooses what needs them, with a message of its own
OPTIONAL = {'datasets', 'gradio', 'onnx_ir', 'onnxruntime'}
DISTRIBUTIONS = {
    'PIL': 'pillow',
    'cv2': 'opencv-python-headless',
    'mmcv': 'onedl-mmcv',
    'mmdet': 'onedl-mmdetection',
    'mmengine': 'onedl-mmengine',
    'mmpretrain': 'onedl-mmpretrain',
    'mmseg': 'onedl-mmsegmentation',
    'open_clip': 'open-clip-torch',
    'skimage': 'scikit-image',
    'sklearn': 'scikit-learn',
    'yaml': 'pyyaml',
}


def call(command, cwd, **env):
    """Run a program; give what it prints."""
    outside = {k: v for k, v in os.environ.items() if k != 'PYTHONPATH'}
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env={**outside, **env},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def run(code, cwd, **env):
    """Run Python code; give what it prints."""
    return call([sys.executable, *code], cwd, **env)


@pytest.fixture(scope='module')
def clone(tmp_path_factory):
    """A copy to build in; it has links in .mim, as after make install."""
    clone = tmp_path_factory.mktemp('clone')
    skip = shutil.ignore_patterns('__pycache__', '.mim')
    for name in SOURCES:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, clone / name, ignore=skip)
        else:
            shutil.copy2(source, clone / name)
    (clone / 'kpu_mm' / '.mim').mkdir()
    (clone / 'kpu_mm' / '.mim' / 'configs').symlink_to('../../configs')
    return clone


def build(kind, folder, out):
    call = f'b.build_{kind}({str(out)!r})'
    code = f'from setuptools import build_meta as b; {call}'
    run(['-c', code], folder)
    (built,) = out.iterdir()
    return built


@pytest.fixture(scope='module')
def sdist(clone, tmp_path_factory):
    return build('sdist', clone, tmp_path_factory.mktemp('sdist'))


@pytest.fixture(scope='module')
def new(sdist, tmp_path_factory):
    """A new environment with the wheel of the sdist, the longest way, and borrowed libraries."""
    folder = tmp_path_factory.mktemp('unpacked')
    with tarfile.open(sdist) as archive:
        archive.extractall(folder)
    (source,) = folder.iterdir()
    wheel = build('wheel', source, tmp_path_factory.mktemp('wheel'))
    new = tmp_path_factory.mktemp('new')
    venv.create(new, with_pip=False)
    python = new / 'bin' / 'python'
    pip = ['-m', 'pip', '--python', str(python), 'install', '--no-index', '--no-deps', '--quiet']
    run([*pip, str(wheel)], folder)
    # Only paths: what .pth files there name, such as an editable install, does not come along.
    site = call([python, '-c', 'import sysconfig as s; print(s.get_path("purelib"))'], folder)
    places = {sysconfig.get_path(kind) for kind in ('purelib', 'platlib')}
    (Path(site.strip()) / 'borrowed.pth').write_text('\n'.join(sorted(places)))
    return new


@pytest.fixture(scope='module')
def python(new):
    return new / 'bin' / 'python'


@pytest.fixture(scope='module')
def site(python, tmp_path_factory):
    """Where the wheel lies."""
    code = 'import kpu_mm; print(kpu_mm.__path__[0])'
    return Path(call([python, '-c', code], tmp_path_factory.mktemp('elsewhere')).strip()).parent


@pytest.mark.slow
def test_sdist_holds_configs_and_tools_once(sdist):
    with tarfile.open(sdist) as archive:
        names = [name.split('/', 1)[-1] for name in archive.getnames()]
    assert set(SHIPPED) < set(names)
    assert not [name for name in names if '.mim' in name or '.pyc' in name]


@pytest.mark.slow
def test_wheel_holds_configs_and_tools(site):
    mim = site / 'kpu_mm' / '.mim'
    shipped = {
        path.relative_to(mim).as_posix()
        for path in mim.rglob('*')
        if path.is_file() and '__pycache__' not in path.parts
    }
    assert shipped == {*SHIPPED, 'model-index.yml'}
    assert os.access(mim / 'tools' / 'dist_train.sh', os.X_OK)
    assert not (site / 'projects').exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ('first', 'base'),
    [
        ('import kpu_mm', "'kpu_mm::distill/kpu_vitb.py'"),
        # a tool of another project, which does not know kpu_mm
        ('pass', "__import__('kpu_mm').base('distill/kpu_vitb.py')"),
    ],
)
def test_config_of_the_wheel_is_a_base_elsewhere(python, site, tmp_path, first, base):
    (tmp_path / 'mine.py').write_text(f'_base_ = {base}\nmine = 1\n')
    code = (
        f'{first}\n'
        'from mmengine.config import Config\n'
        'cfg = Config.fromfile("mine.py")\n'
        'import kpu_mm\n'
        'print(cfg.model.type, cfg.mine, kpu_mm.__file__)'
    )
    words = call([python, '-c', code], tmp_path).split()
    assert words[1:] == ['1', str(site / 'kpu_mm' / '__init__.py')]
    assert words[0].startswith('kpu_mm.')


@pytest.mark.slow
def test_tools_of_the_wheel_start(python, site, tmp_path):
    train = site / 'kpu_mm' / '.mim' / 'tools' / 'train.py'
    assert '--work-dir' in call([python, train, '--help'], tmp_path)


@pytest.mark.slow
def test_installer_of_the_wheel_finds_its_files(python, site, tmp_path):
    pytest.importorskip('mmcv.ops')
    script = site / 'kpu_mm' / '.mim' / 'tools' / 'install' / 'install_mm.py'
    # all is there already, mmcv's operators are tried
    assert 'Compiling' not in call([python, script, '--for', 'downstream'], tmp_path)


@pytest.mark.slow
def test_command_of_the_wheel(new, site, tmp_path):
    text = call([new / 'bin' / 'kpu-mm', '--help'], tmp_path)
    assert 'distill' in text
    text = call([new / 'bin' / 'kpu-mm', 'doctor'], tmp_path)
    assert text.splitlines()[1].strip() == f'in {site / "kpu_mm"}'
    assert f'torch {version("torch")}' in text


@pytest.mark.slow
def test_editable_install_links(clone, tmp_path):
    """`pip install -e .` must show an edited config at once."""
    out = tmp_path / 'out'
    out.mkdir()
    build('editable', clone, out)
    mim = clone / 'kpu_mm' / '.mim'
    for name in ('configs', 'tools', 'model-index.yml'):
        assert (mim / name).is_symlink()
        assert (mim / name).resolve() == clone / name


@pytest.mark.slow
def test_metadata_requires_no_mm_package(site):
    (info,) = site.glob('kpu_mm-*.dist-info')
    lines = (info / 'METADATA').read_text().splitlines()
    required = [line for line in lines if line.startswith('Requires-Dist')]
    assert any('torch' in line for line in required)
    assert not [line for line in required if re.search(r': (onedl|mm)', line)]
    assert 'License-Expression: Apache-2.0' in lines
    assert (info / 'licenses' / 'LICENSE').is_file()


@pytest.mark.slow
def test_names_resolve_in_other_scopes(tmp_path):
    """`custom_imports` is all that a config of another project needs."""
    pytest.importorskip('mmcv.ops')
    (tmp_path / 'theirs.py').write_text(
        "custom_imports = dict(imports=['kpu_mm'])\nmodel = dict(type='kpu_mm.MLPProjector')\n"
    )
    code = (
        'from importlib import import_module\n'
        'from mmengine.config import Config\n'
        'from mmengine.registry import DefaultScope\n'
        'cfg = Config.fromfile("theirs.py")\n'
        'for scope in ("mmdet", "mmseg", "mmpretrain"):\n'
        '    with DefaultScope.overwrite_default_scope(scope):\n'
        '        models = import_module(f"{scope}.registry").MODELS\n'
        '        print(models.get(cfg.model.type).__module__)'
    )
    lines = run(['-c', code], tmp_path, PYTHONPATH=str(ROOT)).splitlines()
    found = [line for line in lines if line.startswith('kpu_mm.models.')]
    assert len(found) == 3


def read_names(name):
    """Distributions in a requirement file, as pip spells them."""
    text = (ROOT / 'requirements' / f'{name}.txt').read_text()
    lines = (line.split('#')[0].strip() for line in text.splitlines())
    names = (re.split(r'[=<>; ]', line)[0] for line in lines if line)
    return {name.lower().replace('_', '-') for name in names}


def distributions(paths):
    """What provides the modules that files import."""
    names = set()
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name.split('.')[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names.add(node.module.split('.')[0])
    names -= set(sys.stdlib_module_names) | OPTIONAL | {'kpu_mm', 'tests'}
    return {DISTRIBUTIONS.get(n, n).lower().replace('_', '-') for n in names}


def test_what_is_imported_is_required():
    declared = read_names('runtime') | read_names('mminstall')
    # with MMDetection comes what MMDetection needs
    detection = {
        path
        for part in DETECTION_PARTS
        for path in (ROOT / 'kpu_mm' / 'models' / part).rglob('*.py')
    } | {ROOT / 'kpu_mm' / 'datasets' / 'coco_dataset.py'}
    others = set((ROOT / 'kpu_mm').rglob('*.py')) - detection
    assert distributions(others) <= declared
    assert distributions(detection) <= declared | read_names('downstream')


def test_what_is_required_is_pinned():
    """But for the mm* packages, which mminstall.txt pins."""
    pinned = read_names('constraints')
    # built against what is there, or taken from it
    free = {'setuptools', 'wheel'}
    for name in ('runtime', 'downstream', 'export', 'page', 'tests', 'demo', 'docs'):
        assert read_names(name) - free <= pinned, name
