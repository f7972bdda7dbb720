import re
import sys
from types import SimpleNamespace

import pytest
import torch

from kpu_mm.models.layers import deform_attention
from kpu_mm.utils.gpu_operators import advice, operators_fault


@pytest.fixture
def machine(monkeypatch):
    """Give this process a GPU, on its CPU, and operators compiled in some way."""
    ones = torch.ones

    def become(built='12.8', used='12.8', kernel=None):
        def run(value, *_, im2col_step):
            if kernel is not None:
                return kernel(value)
            return value.mean(1)[:, None].flatten(2)

        operators = SimpleNamespace(get_compiling_cuda_version=lambda: built)
        attention = SimpleNamespace(ext_module=SimpleNamespace(ms_deform_attn_forward=run))
        monkeypatch.setitem(sys.modules, 'mmcv.ops', operators)
        monkeypatch.setitem(sys.modules, 'mmcv.ops.multi_scale_deform_attn', attention)
        monkeypatch.setattr(torch.version, 'cuda', used)
        monkeypatch.setattr(torch, 'ones', lambda *s, device: ones(*s))
        monkeypatch.setattr(torch.cuda, 'current_device', lambda: 0)
        monkeypatch.setattr(torch.cuda, 'get_device_capability', lambda i: (9, 0))
        monkeypatch.setattr(torch.cuda, 'get_device_name', lambda i: 'NVIDIA H100')
        operators_fault.cache_clear()

    yield become
    operators_fault.cache_clear()


def fails(value):
    raise RuntimeError('CUDA error: no kernel image is available for execution on the device')


def test_operators_that_run(machine):
    machine()
    assert operators_fault((0,)) is None
    assert deform_attention.has_fused_kernel()
    machine(built='12.4')
    assert operators_fault((0,)) is None


@pytest.mark.parametrize(
    ('there', 'sentence'),
    [
        (dict(built='not available'), 'compiled without CUDA'),
        (dict(built='11.8'), 'compiled for CUDA 11.8, and torch for CUDA 12.8'),
        (dict(kernel=fails), r'do not run on NVIDIA H100 \(architecture 9.0; CUDA error: no'),
        # mmcv's kernel prints its error and leaves what it was to fill
        (dict(kernel=torch.zeros_like), r'not compiled for NVIDIA H100 \(architecture 9.0\)'),
    ],
)
def test_operators_that_do_not(machine, there, sentence):
    machine(**there)
    assert re.search(sentence, advice(operators_fault((0,))))
    assert not deform_attention.has_fused_kernel()


def test_operators_for_the_cpu_are_enough_without_a_gpu(machine):
    machine(built='not available')
    assert operators_fault((), cuda=False) is None


def test_no_operators(machine, monkeypatch):
    machine()
    monkeypatch.setitem(sys.modules, 'mmcv.ops', None)
    assert operators_fault((), cuda=False).startswith('mmcv has no operators')
