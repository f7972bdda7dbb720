import sys
from pathlib import Path

# the installer runs as a script: its modules are siblings, not a package
sys.path.insert(0, str(Path(__file__).parents[2] / 'tools' / 'install'))
import cuda_build
import pytest
import torch
from cuda_build import InstallError, check_cuda, covers, describe_target, target_device
from torch.utils import cpp_extension


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """Tell torch which GPUs, nvcc and settings this machine has."""

    def become(gpus=(), nvcc='12.8', cuda='12.8', **environment):
        for name in ('FORCE_CUDA', 'TORCH_CUDA_ARCH_LIST'):
            monkeypatch.delenv(name, raising=False)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(torch.version, 'cuda', cuda)
        monkeypatch.setattr(torch.version, 'hip', None)
        monkeypatch.setattr(torch.cuda, 'is_available', lambda: bool(gpus))
        monkeypatch.setattr(torch.cuda, 'device_count', lambda: len(gpus))
        monkeypatch.setattr(torch.cuda, 'get_device_capability', lambda i: gpus[i])
        home = None
        if nvcc:
            home = tmp_path
            program = home / 'bin' / 'nvcc'
            program.parent.mkdir(exist_ok=True)
            program.write_text(f'#!/bin/sh\necho "Cuda compilation tools, release {nvcc}, V1"\n')
            program.chmod(0o755)
        monkeypatch.setattr(cpp_extension, 'CUDA_HOME', home and str(home))

    return become


def test_device(machine):
    machine()
    assert target_device() == 'cpu'
    machine(gpus=[(9, 0), (8, 0)])
    assert target_device() == 'cuda8.0;9.0'
    machine(gpus=[(9, 0), (8, 0)], TORCH_CUDA_ARCH_LIST='9.0')
    assert target_device() == 'cuda9.0'
    machine(FORCE_CUDA='1', TORCH_CUDA_ARCH_LIST='9.0')
    assert target_device() == 'cuda9.0'


def test_what_compiles(machine):
    machine(gpus=[(9, 0)])
    check_cuda()
    machine(gpus=[(9, 0)], nvcc='12.4')  # minor versions fit each other
    check_cuda()
    machine(FORCE_CUDA='1', TORCH_CUDA_ARCH_LIST='8.0;9.0')
    check_cuda()


@pytest.mark.parametrize(
    ('there', 'sentence'),
    [
        (dict(gpus=[(9, 0)], nvcc=None), 'there is no nvcc: install the CUDA toolkit 12.8'),
        (dict(gpus=[(9, 0)], nvcc='11.8'), 'nvcc is of CUDA 11.8, but torch .* uses CUDA 12.8'),
        (dict(FORCE_CUDA='1', cuda=None), 'built without it'),
        (dict(FORCE_CUDA='1'), "TORCH_CUDA_ARCH_LIST='8.0;9.0' make install"),
        (
            dict(gpus=[(8, 0), (9, 0)], TORCH_CUDA_ARCH_LIST='8.0'),
            'TORCH_CUDA_ARCH_LIST=8.0 leaves out the GPUs of architecture 9.0',
        ),
    ],
)
def test_what_is_missing(machine, there, sentence):
    machine(**there)
    with pytest.raises(InstallError, match=sentence):
        check_cuda()


def test_a_cuda_home_without_nvcc_is_named(machine, monkeypatch, tmp_path):
    machine(gpus=[(9, 0)], nvcc=None)
    monkeypatch.setattr(cpp_extension, 'CUDA_HOME', str(tmp_path))
    with pytest.raises(InstallError, match=f'CUDA_HOME={tmp_path} has no bin/nvcc'):
        check_cuda()


@pytest.mark.parametrize(
    ('listed', 'architecture', 'runs'),
    [
        ('9.0', '9.0', True),
        ('8.0', '8.6', True),
        ('8.6', '8.0', False),
        ('8.0', '9.0', False),
        ('8.0+PTX', '9.0', True),
        ('9.0+PTX', '8.0', False),
        ('9.0a', '9.0', True),
        ('10.0a', '10.3', False),
        ('7.5 8.0;9.0', '9.0', True),
        ('Hopper', '9.0', True),
        ('', '9.0', True),
    ],
)
def test_code_for_one_architecture_on_another(listed, architecture, runs):
    assert covers(listed, architecture) is runs


def test_what_an_installation_leaves_out(machine, monkeypatch):
    machine()
    assert 'for the CPU alone' in describe_target(distill=False)
    assert describe_target(distill=True) is None
    machine(gpus=[(9, 0)])
    assert describe_target(distill=False) is None
    assert 'grid_sample' in describe_target(distill=True)
    # a torch for the CPU beside a GPU
    machine(cuda=None)
    monkeypatch.setattr(cuda_build.shutil, 'which', lambda name: '/usr/bin/nvidia-smi')
    assert 'built without CUDA' in describe_target(distill=True)
    monkeypatch.setattr(cuda_build.shutil, 'which', lambda name: None)
    assert describe_target(distill=False) is None
