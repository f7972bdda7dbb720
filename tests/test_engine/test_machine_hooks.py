import logging
from collections import namedtuple
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.dataset import pseudo_collate
from torch import nn
from torch.utils.data import DataLoader, Dataset

from kpu_mm.datasets import MultiStreamLoader
from kpu_mm.engine import machine_hooks
from kpu_mm.engine.machine_hooks import MachineCheckHook, bytes_in_flight, needs_operators
from kpu_mm.models.layers.deform_attention import DeformableAttention

FAULT = "mmcv's operators were compiled without CUDA"


@pytest.fixture
def on_gpu(monkeypatch):
    """Let the run be on a GPU for which operators have a fault, or none."""

    def become(fault):
        monkeypatch.setattr(machine_hooks, 'get_device', lambda: 'cuda')
        monkeypatch.setattr(torch.cuda, 'current_device', lambda: 0)
        monkeypatch.setattr(machine_hooks, 'operators_fault', lambda gpus: fault)

    return become


def run_with(model, loader=None):
    return SimpleNamespace(
        model=model,
        train_dataloader=loader,
        logger=logging.getLogger('machine'),
        iter=0,
        work_dir='work_dirs/run',
    )


@pytest.mark.parametrize(
    ('fault', 'kernel'),
    [(None, "mmcv's CUDA kernel."), (FAULT, f"torch's grid_sample. {FAULT}: run `make install`")],
)
def test_the_log_names_the_kernel(on_gpu, caplog, fault, kernel):
    on_gpu(fault)
    with caplog.at_level(logging.INFO):
        MachineCheckHook().before_run(run_with(nn.Sequential(DeformableAttention(8, 2, 1, 1))))
    (line,) = caplog.messages
    assert kernel in line


def test_nothing_is_said_of_the_cpu_or_of_other_models(on_gpu, caplog):
    caplog.set_level(logging.INFO)
    MachineCheckHook().before_run(run_with(DeformableAttention(8, 2, 1, 1)))
    on_gpu(FAULT)
    MachineCheckHook().before_run(run_with(nn.Linear(2, 2)))
    assert not caplog.messages


def test_a_model_that_needs_operators_does_not_start(on_gpu):
    ops = pytest.importorskip('mmcv.ops')
    model = nn.ModuleList([nn.Linear(2, 2), ops.RoIAlign(2), ops.MultiScaleDeformableAttention(32)])
    on_gpu(None)
    MachineCheckHook().before_run(run_with(model))
    on_gpu(FAULT)
    wanted = "MultiScaleDeformableAttention, RoIAlign need mmcv's compiled operators on the GPU"
    with pytest.raises(RuntimeError, match=f'{wanted}. {FAULT}: run `make install`'):
        MachineCheckHook().before_run(run_with(model))


def test_which_layers_need_operators():
    ops = pytest.importorskip('mmcv.ops')
    losses = pytest.importorskip('mmdet.models.losses')
    head = nn.Linear(2, 2)
    assert not needs_operators(head)
    head.test_cfg = dict(nms=dict(type='nms'))
    assert needs_operators(head)

    class Own(ops.ModulatedDeformConv2d):
        pass

    assert needs_operators(Own(2, 2, 1))
    assert needs_operators(losses.FocalLoss())
    assert not needs_operators(losses.CrossEntropyLoss())
    # torch's grid_sample
    assert not needs_operators(ops.SimpleRoIAlign((2, 2), 1.0))


class Samples(Dataset):
    """Samples as toolboxes give them, of 3 x 10 x 20 bytes and a mask."""

    def __len__(self):
        return 4

    def __getitem__(self, index):
        np.random.rand()
        images = torch.zeros(3, 10, 20, dtype=torch.uint8)
        return dict(inputs=images, more=[torch.zeros(5, dtype=torch.bool)], name='a')


def loader_of(workers, **options):
    return DataLoader(Samples(), 2, num_workers=workers, collate_fn=pseudo_collate, **options)


def test_bytes_of_batches_in_flight():
    assert bytes_in_flight(loader_of(0)) == 0
    assert bytes_in_flight(loader_of(2)) == 2 * 605 * 2 * 2
    assert bytes_in_flight(loader_of(2, prefetch_factor=5)) == 2 * 605 * 2 * 5
    # a run is the same with the check and without it
    state = np.random.get_state()[1].copy()
    bytes_in_flight(loader_of(2))
    assert (np.random.get_state()[1] == state).all()


def test_too_little_shared_memory(monkeypatch):
    usage = namedtuple('usage', 'total')
    monkeypatch.setattr(machine_hooks.shutil, 'disk_usage', lambda path: usage(5000))
    monkeypatch.setattr(machine_hooks.os.path, 'isdir', lambda path: True)
    hook, run = MachineCheckHook(), run_with(None, loader_of(2))
    monkeypatch.setenv('LOCAL_WORLD_SIZE', '1')
    hook.before_train(run)
    monkeypatch.setenv('LOCAL_WORLD_SIZE', '8')
    with pytest.raises(RuntimeError, match=r'/dev/shm has 0 MB.* 8 process.*--shm-size'):
        hook.before_train(run)


def test_nodes_with_other_images(monkeypatch):
    hook = MachineCheckHook()
    # another node has lost two
    monkeypatch.setattr(machine_hooks, 'all_gather_object', lambda own: [({'': 6}, own[1]), own])
    wanted = 'have 4 samples on rank 1, but 6 samples on rank 0: copy them'
    with pytest.raises(RuntimeError, match=wanted):
        hook.before_train(run_with(None, loader_of(0)))


def test_nodes_that_start_at_other_iterations(monkeypatch):
    """As where each node has a work directory of its own."""
    hook = MachineCheckHook()
    monkeypatch.setattr(machine_hooks, 'all_gather_object', lambda own: [(own[0], 400), own])
    wanted = 'Rank 1 starts at iteration 0, but rank 0 at 400: .* all nodes share'
    with pytest.raises(RuntimeError, match=wanted):
        hook.before_train(run_with(None, loader_of(0)))


def test_shared_memory_of_several_streams(monkeypatch):
    usage = namedtuple('usage', 'total')
    stream = dict(dataset=Samples(), batch_size=2, num_workers=2)
    loader = MultiStreamLoader(dict(a=stream, b={**stream, 'batch_size': 4}))
    needed = (2 + 4) * 605 * 2 * 2
    for name in machine_hooks._LOCAL_SIZES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(machine_hooks.os.path, 'isdir', lambda path: True)
    monkeypatch.setattr(machine_hooks.shutil, 'disk_usage', lambda path: usage(needed))
    MachineCheckHook().before_train(run_with(None, loader))
    monkeypatch.setattr(machine_hooks.shutil, 'disk_usage', lambda path: usage(needed - 1))
    with pytest.raises(RuntimeError, match='share about'):
        MachineCheckHook().before_train(run_with(None, loader))
