import argparse
import os
import subprocess
import sys
from datetime import timedelta

import pytest
import torch
from mmengine.config import Config

from kpu_mm.utils.command_line import (
    add_config_arguments,
    add_run_arguments,
    device,
    positive,
    read_config,
    read_run_config,
    refusing,
    use_gloo_without_gpu,
)


def refused(capsys, *args):
    with pytest.raises(SystemExit) as caught:
        read_config(*args)
    assert caught.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_missing_file(capsys):
    assert refused(capsys, 'no.py').endswith('no config file no.py.')


@pytest.mark.parametrize(
    ('text', 'words'),
    [
        ('a = = 3', 'SyntaxError'),
        ("_base_ = 'gone.py'", 'gone.py'),
        ("custom_imports = dict(imports=['gone_mm'])", 'gone_mm'),
        ('a = 1 / 0', 'ZeroDivisionError'),
    ],
)
def test_unreadable_file_gives_one_line(tmp_path, capsys, text, words):
    path = tmp_path / 'config.py'
    path.write_text(text)
    line = refused(capsys, str(path))
    assert str(path) in line
    assert words in line
    assert 'sys.path' not in line


def test_a_toolbox_that_is_missing_is_named(tmp_path, capsys, monkeypatch):
    path = tmp_path / 'zero_shot.py'
    path.write_text("default_scope = 'mmdet'")
    monkeypatch.setitem(sys.modules, 'mmdet', None)
    with pytest.raises(SystemExit):
        read_config(str(path))
    assert f'{path} needs mmdet, not installed here: run `make install`.' in capsys.readouterr().err


def test_options_change_the_config(tmp_path, capsys):
    path = tmp_path / 'config.py'
    path.write_text('a = dict(b=1)')
    parser = argparse.ArgumentParser()
    add_config_arguments(parser)
    args = parser.parse_args([str(path), '--cfg-options', 'a.b=2', 'c=[1,2]'])
    cfg = read_config(args.config, args.cfg_options)
    assert (cfg.a.b, cfg.c) == (2, [1, 2])
    line = refused(capsys, str(path), {'a.b.c': 3})
    assert '--cfg-options do not fit' in line


@pytest.mark.parametrize(
    ('text', 'words'), [('foo', "'foo' is no KEY=VALUE"), ('a=[1,(2]', 'Imbalanced brackets')]
)
def test_options_that_are_no_settings(text, words, capsys):
    parser = argparse.ArgumentParser()
    add_config_arguments(parser)
    with pytest.raises(SystemExit) as end:
        parser.parse_args(['config.py', '--cfg-options', 'b=1', text])
    assert end.value.code == 2
    assert f'argument --cfg-options: {words}' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('launcher', 'gpu', 'calls'),
    [
        ('pytorch', False, [('gloo', timedelta(seconds=90))]),
        ('pytorch', True, []),
        ('none', False, []),
    ],
)
def test_gloo_only_without_gpu(monkeypatch, launcher, gpu, calls):
    called = []
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: gpu)
    monkeypatch.setattr(
        torch.distributed,
        'init_process_group',
        lambda backend, timeout: called.append((backend, timeout)),
    )
    use_gloo_without_gpu(
        Config(dict(launcher=launcher, env_cfg=dict(dist_cfg=dict(backend='nccl', timeout=90))))
    )
    assert called == calls


ENDS = """
import atexit, sys
import torch.distributed as dist
from kpu_mm.utils.command_line import end_together

class Torn:
    def __del__(self):
        # Python has flushed its streams for the last time by now.
        print('torn down', flush=True)

torn = Torn()
atexit.register(print, 'exit handlers')
if len(sys.argv) > 1:
    dist.init_process_group('gloo', sys.argv[1], rank=0, world_size=1)
    print('distributed')
end_together()
print('single')
"""


@pytest.mark.parametrize(
    ('distributed', 'lines'),
    [(True, ['distributed', 'exit handlers']), (False, ['single', 'exit handlers', 'torn down'])],
)
def test_ends_without_tearing_python_down(tmp_path, distributed, lines):
    store = [f'file://{tmp_path / "store"}'] * distributed
    done = subprocess.run(
        [sys.executable, '-c', ENDS, *store], capture_output=True, text=True, check=True
    )
    said = done.stdout.splitlines()
    assert [line for line in said if 'Gloo' not in line] == lines


def test_mpi_says_which_gpu_is_a_rank_s(tmp_path, monkeypatch):
    monkeypatch.delenv('LOCAL_RANK', raising=False)
    monkeypatch.setenv('OMPI_COMM_WORLD_LOCAL_RANK', '3')
    path = tmp_path / 'config.py'
    path.write_text('x = 1\n')
    parser = argparse.ArgumentParser()
    add_run_arguments(parser)
    # what it sets goes with the test
    monkeypatch.setattr(os, 'environ', dict(os.environ))
    read_run_config(parser.parse_args([str(path), '--launcher', 'mpi']))
    assert os.environ['LOCAL_RANK'] == '3'


def test_errors_of_values_become_a_sentence(capsys):
    for kind in (ValueError, ImportError, FloatingPointError):
        with pytest.raises(SystemExit) as end, refusing():
            raise kind('too blue.')
        assert end.value.code == 2
        assert capsys.readouterr().err.endswith('error: too blue.\n')
    # a fault of the program is no fault of the user
    with pytest.raises(TypeError), refusing():
        raise TypeError


@pytest.mark.parametrize('text', ['0', '-1', '1.5', 'many', ''])
def test_positive(text):
    assert positive('12') == 12
    with pytest.raises(argparse.ArgumentTypeError, match=repr(text)):
        positive(text)


def test_device():
    assert device('cuda:1') == torch.device('cuda', 1)
    with pytest.raises(argparse.ArgumentTypeError, match='abacus'):
        device('abacus')
