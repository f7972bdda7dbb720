from importlib.metadata import PackageNotFoundError
from types import SimpleNamespace

import install_mm
import pytest
from mmcv_ops import InstallError

MMCV = 'onedl-mmcv==2.3.6'


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """A machine on which calls are recorded and nothing is installed."""

    there = SimpleNamespace(modules=set(), versions={}, wheel=None, errors=[], calls=[])

    def version(name):
        if name not in there.versions:
            raise PackageNotFoundError(name)
        return there.versions[name]

    def build(requirement, folder):
        there.calls.append('build')
        wheel = tmp_path / 'built.whl'
        wheel.touch()
        return wheel

    fakes = dict(
        find_spec=lambda name: name in there.modules or None,
        version=version,
        pip_install=lambda *a: there.calls.append(a),
        why_no_operators=lambda: there.errors.pop(0),
        wheel_folder=lambda mmcv: tmp_path,
        cached_wheel=lambda folder: there.wheel,
        build_wheel=build,
    )
    for name, fake in fakes.items():
        monkeypatch.setattr(install_mm, name, fake)
    return there


def test_requirements_name_every_package():
    lines = install_mm.read_requirements(install_mm.MMINSTALL)
    names = install_mm.DISTILL | install_mm.DOWNSTREAM
    assert set(lines) == set(names.values())
    assert all('==' in line for line in lines.values())


def test_distillation_needs_no_operators(machine):
    install_mm.install('distill')
    ((*names,),) = machine.calls
    assert [name.split('==')[0] for name in names] == list(install_mm.DISTILL.values())


def test_what_is_there_stays(machine):
    every = install_mm.DISTILL | install_mm.DOWNSTREAM
    machine.modules = set(every)
    machine.errors = [None]
    install_mm.install('distill')
    install_mm.install('downstream')
    assert machine.calls == []


def test_plain_mmcv_is_built_and_cached(machine, tmp_path):
    machine.errors = ['No module named mmcv', None]
    install_mm.install_operators(MMCV)
    built = str(tmp_path / 'built.whl')
    assert machine.calls == ['build', ('--force-reinstall', built)]


def test_cached_wheel_is_used(machine, tmp_path):
    machine.wheel = tmp_path / 'cached.whl'
    machine.errors = ['no _ext', None]
    install_mm.install_operators(MMCV)
    assert machine.calls == [('--force-reinstall', str(machine.wheel))]


def test_cached_wheel_that_fails_is_built_anew(machine, tmp_path):
    machine.wheel = tmp_path / 'cached.whl'
    machine.wheel.touch()
    machine.errors = ['no _ext', 'undefined symbol', None]
    install_mm.install_operators(MMCV)
    assert not machine.wheel.exists()
    assert machine.calls[1] == 'build'


def test_new_wheel_that_fails_is_not_kept(machine, tmp_path):
    machine.errors = ['no _ext', 'undefined symbol']
    with pytest.raises(InstallError, match='undefined symbol'):
        install_mm.install_operators(MMCV)
    assert not (tmp_path / 'built.whl').exists()


@pytest.mark.parametrize('versions', [{'mmcv': '2.1.0'}, {'onedl-mmcv': '2.3.5'}])
def test_mmcv_of_somebody_else_is_left_alone(machine, versions):
    machine.modules, machine.versions = {'mmcv'}, versions
    machine.errors = ["No module named 'mmcv._ext'"]
    with pytest.raises(InstallError, match='is left alone'):
        install_mm.install_operators(MMCV)
    assert machine.calls == []


def test_our_mmcv_without_operators_is_replaced(machine):
    machine.modules, machine.versions = {'mmcv'}, {'onedl-mmcv': '2.3.6'}
    machine.errors = ["No module named 'mmcv._ext'", None]
    install_mm.install_operators(MMCV)
    assert machine.calls[0] == 'build'
