"""What a run needs of its machines: operators for the GPU, shared memory, the same images."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from typing import Any

import torch
from mmengine.device import get_device
from mmengine.dist import all_gather_object
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.utils.data import DataLoader

from kpu_mm.datasets.image_order import seeded
from kpu_mm.models.layers.deform_attention import DeformableAttention
from kpu_mm.registry import HOOKS
from kpu_mm.utils.gpu_operators import advice, operators_fault

from .model_wrappers import unwrap

_SHARED = '/dev/shm'
# How torchrun, slurm and Open MPI tell the number of processes on a machine.
_LOCAL_SIZES = ('LOCAL_WORLD_SIZE', 'SLURM_NTASKS_PER_NODE', 'OMPI_COMM_WORLD_LOCAL_SIZE')
# Parts of mmcv.ops that torch's own operators compute.
_PLAIN = ('mmcv.ops.point_sample', 'mmcv.ops.deprecated_wrappers')


@HOOKS.register_module()
class MachineCheckHook(Hook):
    """Check the machines before a run.

    On a GPU, mmcv's operators must be compiled for it where the model has
    layers that need them. The log tells which kernel of deformable attention
    kpu_mm's own layers use. Workers hand their batches over in shared memory:
    too little of it would end a worker by a bus error. All processes must
    find the same number of images, wherever they are.
    """

    def before_run(self, runner: Runner) -> None:
        """Check the operators, if the model is on a GPU.

        Args:
            runner: The runner.

        Raises:
            RuntimeError: If the model needs operators that are missing.
        """
        if get_device() != 'cuda':
            return
        model = unwrap(runner.model)
        fault = operators_fault((torch.cuda.current_device(),))
        needy = sorted({type(m).__name__ for m in model.modules() if needs_operators(m)})
        if fault and needy:
            raise RuntimeError(
                f"{', '.join(needy)} need mmcv's compiled operators on the GPU. {advice(fault)}"
            )
        if any(isinstance(module, DeformableAttention) for module in model.modules()):
            kernel = f"torch's grid_sample. {advice(fault)}" if fault else "mmcv's CUDA kernel."
            runner.logger.info(f'Deformable attention of the adapter uses {kernel}')

    def before_train(self, runner: Runner) -> None:
        """Check the training data, the shared memory for it, and where ranks start.

        Args:
            runner: The runner.

        Raises:
            RuntimeError: If the workers need more than there is, or another
                rank has more images or fewer, or starts elsewhere.
        """
        loader = runner.train_dataloader
        # several streams, or one task alone
        loaders: dict[str, Any] = getattr(loader, 'loaders', {'': loader})
        # Ranks also wait here until the last node has scanned its images.
        own = {name: len(one.dataset) for name, one in loaders.items()}
        ranks = all_gather_object((own, runner.iter))
        counts, start = ranks[0]
        for rank, (found, iteration) in enumerate(ranks):
            if found != counts:
                raise RuntimeError(
                    f'The training data have {_listed(found)} on rank {rank}, but '
                    f'{_listed(counts)} on rank 0: copy them to all nodes, whole.'
                )
            # Each resumes by itself, and gradients of two models would be averaged.
            if iteration != start:
                raise RuntimeError(
                    f'Rank {rank} starts at iteration {iteration}, but rank 0 at {start}: '
                    f'{runner.work_dir} must be one folder that all nodes share.'
                )
        if not os.path.isdir(_SHARED):  # Linux alone has it
            return
        local = next((int(os.environ[name]) for name in _LOCAL_SIZES if name in os.environ), 1)
        needed = local * sum(map(bytes_in_flight, loaders.values()))
        # Not what is free: other ranks may have started their workers.
        there = shutil.disk_usage(_SHARED).total
        if needed > there:
            raise RuntimeError(
                f'{_SHARED} has {there / 1e6:.0f} MB, but the workers of {local} process(es) share '
                f'about {needed / 1e6:.0f} MB of batches: make it larger (docker run '
                '--shm-size=8g), or set smaller num_workers or prefetch_factor.'
            )


def needs_operators(module: nn.Module) -> bool:
    """Tell whether a layer runs on a GPU only with mmcv's compiled operators.

    Args:
        module: A layer of any toolbox.
    """
    # Focal losses use mmcv's on GPUs alone; heads with NMS have no layer for it.
    if type(module).__name__ == 'FocalLoss' and module.__module__.startswith(('mmdet', 'mmseg')):
        return True
    if 'nms' in (getattr(module, 'test_cfg', None) or {}):
        return True
    homes = [cls.__module__ for cls in type(module).__mro__]
    return any(home.startswith('mmcv.ops') and home not in _PLAIN for home in homes)


def bytes_in_flight(loader: DataLoader) -> int:
    """Estimate the shared memory that the workers of a loader use.

    Args:
        loader: The loader; its first sample stands for all.

    Returns:
        Bytes of all batches that are loaded ahead.
    """
    if not loader.num_workers:
        return 0
    # Samples of some datasets draw from the global generators.
    with seeded(0):
        sample = loader.dataset[0]
    batch = loader.collate_fn([sample] * (loader.batch_size or 1))
    return _tensor_bytes(batch) * loader.num_workers * (loader.prefetch_factor or 2)


def _listed(counts: Mapping[str, int]) -> str:
    return ', '.join(f'{count:,} samples {name}'.strip() for name, count in counts.items())


def _tensor_bytes(batch: Any) -> int:
    if isinstance(batch, Tensor):
        return batch.nbytes
    if isinstance(batch, Mapping):
        return sum(map(_tensor_bytes, batch.values()))
    return sum(map(_tensor_bytes, batch)) if isinstance(batch, list | tuple) else 0
