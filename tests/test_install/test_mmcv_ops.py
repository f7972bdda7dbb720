import os
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import mmcv_ops
import pytest
from mmcv_ops import (
    InstallError,
    build_environment,
    cache_key,
    cached_wheel,
    cpp_standard,
    run_build,
    wheel_folder,
)


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
    assert setup.read_text() == ("cxx = ['-std=c++20']\nnvcc = ['-std=c++20', '-O2']\n")


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
    monkeypatch.setattr(mmcv_ops.sysconfig, 'get_path', lambda name: str(tmp_path))
    with pytest.raises(InstallError, match='the headers of this Python'):
        mmcv_ops.check_compiler()


def fake_build(monkeypatch, tmp_path, compile_wheel):
    """Replace the network and the compiler."""
    source = tmp_path / 'source'
    source.mkdir()
    (source / 'setup.py').write_text("cxx = ['-std=c++17']")
    monkeypatch.setattr(mmcv_ops, 'check_compiler', lambda: None)
    monkeypatch.setattr(mmcv_ops, 'target_device', lambda: 'cpu')
    monkeypatch.setattr(mmcv_ops.subprocess, 'run', lambda *a, **k: None)
    monkeypatch.setattr(mmcv_ops, 'fetch_source', lambda *a: source)
    monkeypatch.setattr(mmcv_ops, 'run_build', compile_wheel)
    folder = tmp_path / 'cache'
    folder.mkdir()
    return folder


def test_wheel_reaches_the_cache(monkeypatch, tmp_path):
    def compile_wheel(command, log, env):
        out = Path(command[command.index('--wheel-dir') + 1])
        out.mkdir()
        (out / 'mmcv.whl').write_bytes(b'whole')

    folder = fake_build(monkeypatch, tmp_path, compile_wheel)
    wheel = mmcv_ops.build_wheel('onedl-mmcv==2.3.6', folder)
    assert wheel.read_bytes() == b'whole'
    assert list(folder.iterdir()) == [wheel]


def test_interrupted_build_leaves_nothing(monkeypatch, tmp_path):
    scratch = []

    def compile_wheel(command, log, env):
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


def test_key_tells_apart_what_a_binary_depends_on():
    keys = {
        cache_key('2.3.6', '2.10.0+cu128', 'cpu'),
        cache_key('2.3.7', '2.10.0+cu128', 'cpu'),
        cache_key('2.3.6', '2.10.0+cpu', 'cpu'),
        cache_key('2.3.6', '2.10.0+cu128', 'cuda9.0'),
        cache_key('2.3.6', '2.10.0+cu128', 'cuda8.0;9.0'),
    }
    assert len(keys) == 5
    for key in keys:
        assert sys.implementation.cache_tag in key
        assert not set(key) & set('/; ')


def test_cache_is_where_the_user_says(monkeypatch, tmp_path):
    monkeypatch.setenv('KPU_MM_CACHE', str(tmp_path))
    assert wheel_folder('2.3.6').parent == tmp_path / 'wheels'
    monkeypatch.delenv('KPU_MM_CACHE')
    monkeypatch.setenv('HOME', str(tmp_path))
    parent = wheel_folder('2.3.6').parent
    assert parent == tmp_path / '.cache' / 'kpu_mm' / 'wheels'


def test_whole_wheel_is_found_and_a_damaged_one_removed(tmp_path, capsys):
    assert cached_wheel(tmp_path) is None
    wheel = tmp_path / 'onedl_mmcv-2.3.6-cp311-cp311-linux_x86_64.whl'
    with zipfile.ZipFile(wheel, 'w') as archive:
        archive.writestr('mmcv/_ext.so', bytes(5000))
    assert cached_wheel(tmp_path) == wheel
    wheel.write_bytes(wheel.read_bytes()[:3000])
    assert cached_wheel(tmp_path) is None
    assert not wheel.exists()
    assert 'damaged' in capsys.readouterr().out


def test_unfinished_copy_is_no_wheel(tmp_path):
    (tmp_path / 'mmcv.whl.part-1').write_bytes(b'')
    assert cached_wheel(tmp_path) is None


def test_failed_build_tells_the_end_of_its_log(tmp_path):
    code = 'import sys; print("a.cpp:1: error"); sys.exit(3)'
    with pytest.raises(InstallError, match=r'a\.cpp:1: error\n.*tmp') as caught:
        run_build([sys.executable, '-c', code], tmp_path / 'tmp', dict(os.environ))
    assert str(tmp_path / 'tmp') in str(caught.value)
    assert (tmp_path / 'tmp').read_text() == 'a.cpp:1: error\n'


def test_interrupted_build_ends_its_compilers(tmp_path, monkeypatch):
    child = tmp_path / 'child'
    code = (
        'import pathlib, subprocess, sys\n'
        'run = [sys.executable, "-c", "import time; time.sleep(60)"]\n'
        'process = subprocess.Popen(run)\n'
        f'path = pathlib.Path({str(child)!r})\n'
        'path.with_suffix(".part").write_text(str(process.pid))\n'
        'path.with_suffix(".part").rename(path)\n'
        'process.wait()'
    )
    wait = subprocess.Popen.wait

    def interrupt(process, *args, **kwargs):
        monkeypatch.setattr(subprocess.Popen, 'wait', wait)
        until(child.exists, 'the child has not started')
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess.Popen, 'wait', interrupt)
    with pytest.raises(KeyboardInterrupt):
        run_build([sys.executable, '-c', code], tmp_path / 'log', dict(os.environ))
    pid = int(child.read_text())
    until(lambda: not is_running(pid), f'{pid} lives on')


def until(condition, otherwise):
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.05)


def is_running(pid):
    try:
        with open(f'/proc/{pid}/stat') as file:
            return file.read().split(')')[1].split()[0] != 'Z'
    except (FileNotFoundError, ProcessLookupError):
        return False
