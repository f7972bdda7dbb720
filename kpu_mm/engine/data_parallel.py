"""DistributedDataParallel for GPUs and CPUs, and for per-stream backward."""

from __future__ import annotations

from typing import Any

from mmengine.model import MMDistributedDataParallel
from mmengine.optim import OptimWrapper
from torch import nn

from kpu_mm.registry import MODEL_WRAPPERS


@MODEL_WRAPPERS.register_module()
class KPUDistributedDataParallel(MMDistributedDataParallel):
    """DDP around any model of OpenMMLab.

    Args:
        module: The model; one with ``backward='per_stream'`` (distillers,
            models of several tasks) exchanges its gradients by itself.
        device_ids: The rank's GPU; ignored for a module on the CPU, where
            DDP accepts none. Defaults to None.
        broadcast_buffers: Broadcast rank 0's buffers before each forward.
            Defaults to False, as SyncBN keeps them equal.
        find_unused_parameters: Look for parameters without gradient in each
            iteration. Defaults to False.
    """

    def __init__(
        self,
        module: nn.Module,
        device_ids: list[int] | None = None,
        broadcast_buffers: bool = False,
        find_unused_parameters: bool = False,
    ) -> None:
        on_cpu = next(module.parameters()).device.type == 'cpu'
        super().__init__(
            module,
            device_ids=None if on_cpu else device_ids,
            broadcast_buffers=broadcast_buffers,
            find_unused_parameters=find_unused_parameters,
        )

    def train_step(
        self, data: dict[str, Any], optim_wrapper: OptimWrapper
    ) -> dict[str, Any]:
        """One step; a per-stream backward synchronises by itself, once."""
        if getattr(self.module, 'backward', None) == 'per_stream':
            with self.no_sync():
                return self.module.train_step(data, optim_wrapper)
        return super().train_step(data, optim_wrapper)
