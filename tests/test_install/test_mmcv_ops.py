import os
from pathlib import Path

import mmcv_ops
import pytest
from mmcv_ops import InstallError, build_environment, cpp_standard


@pytest.mark.parametrize(
    ('torch_version', 'standard'),
    [
        ('2.4.1', 'c++17'),
        ('2.10.0+cu128', 'c++17'),
        ('2.11.0a0+git1', 'c++17'),
        ('2.12.0', 'c++20'),
        ('3.0.0', 'c++20'),
    ],
)
def test_standard_follows_torch(torch_version, standard):
    assert cpp_standard(torch_version) == standard


def test_standard_is_written_for_every_compiler(tmp_path):
    setup = tmp_path / 'setup.py'
    setup.write_text("cxx = ['-std=c++17']\nnvcc = ['-std=c++14', '-O2']\n")
    mmcv_ops.set_cpp_standard(setup, 'c++20')
    assert setup.read_text() == (
        "cxx = ['-std=c++20']\nnvcc = ['-std=c++20', '-O2']\n"
    )


def test_environment_is_fast_unless_the_user_says_otherwise(monkeypatch):
    for name in ('CFLAGS', 'CXXFLAGS', 'MAX_JOBS', 'PYTHONPATH'):
        monkeypatch.delenv(name, raising=False)
    env = build_environment(Path('tools'))
    assert env['CFLAGS'] == env['CXXFLAGS'] == '-O2 -g0'
    assert 1 <= int(env['MAX_JOBS']) <= len(os.sched_getaffinity(0))
    assert env['PATH'].split(os.pathsep)[0] == str(Path('tools/bin'))
    assert env['PYTHONPATH'] == 'tools'
    monkeypatch.setenv('MAX_JOBS', '1')
    monkeypatch.setenv('CFLAGS', '-O0')
    env = build_environment(Path('tools'))
    assert (env['MAX_JOBS'], env['CFLAGS']) == ('1', '-O0')


def test_no_compiler_and_no_headers(monkeypatch, tmp_path):
    monkeypatch.setenv('CXX', 'no-such-compiler')
    with pytest.raises(InstallError, match='no C\\+\\+ compiler'):
        mmcv_ops.check_compiler()
    monkeypatch.setenv('CXX', 'sh')
    monkeypatch.setattr(
        mmcv_ops.sysconfig, 'get_path', lambda name: str(tmp_path)
    )
    with pytest.raises(InstallError, match='the headers of this Python'):
        mmcv_ops.check_compiler()


def fake_build(monkeypatch, tmp_path, compile_wheel):
    """Replace the network and the compiler."""
    source = tmp_path / 'source'
    source.mkdir()
    (source / 'setup.py').write_text("cxx = ['-std=c++17']")
    monkeypatch.setattr(mmcv_ops, 'check_compiler', lambda: None)
    monkeypatch.setattr(mmcv_ops.subprocess, 'run', lambda *a, **k: None)
    monkeypatch.setattr(mmcv_ops, 'fetch_source', lambda *a: source)
    monkeypatch.setattr(mmcv_ops, 'run_with_progress', compile_wheel)
    folder = tmp_path / 'cache'
    folder.mkdir()
    return folder


def test_wheel_reaches_the_cache(monkeypatch, tmp_path):
    def compile_wheel(command, name, log, env):
        out = Path(command[command.index('--wheel-dir') + 1])
        out.mkdir()
        (out / 'mmcv.whl').write_bytes(b'whole')

    folder = fake_build(monkeypatch, tmp_path, compile_wheel)
    wheel = mmcv_ops.build_wheel('onedl-mmcv==2.3.6', folder)
    assert wheel.read_bytes() == b'whole'
    assert list(folder.iterdir()) == [wheel]


def test_interrupted_build_leaves_nothing(monkeypatch, tmp_path):
    scratch = []

    def compile_wheel(command, name, log, env):
        out = Path(command[command.index('--wheel-dir') + 1])
        scratch.append(out.parent)
        out.mkdir()
        (out / 'mmcv.whl').write_bytes(b'hal')
        raise KeyboardInterrupt

    folder = fake_build(monkeypatch, tmp_path, compile_wheel)
    with pytest.raises(KeyboardInterrupt):
        mmcv_ops.build_wheel('onedl-mmcv==2.3.6', folder)
    assert list(folder.iterdir()) == []
    assert not scratch[0].exists()
