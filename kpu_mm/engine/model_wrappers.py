"""Wrappers around the model of a run, and the way to what they wrap."""

from __future__ import annotations

from typing import Any

from mmengine.model import MMDistributedDataParallel, is_model_wrapper
from mmengine.optim import OptimWrapper
from torch import nn

from kpu_mm.registry import MODEL_WRAPPERS


def unwrap(model: nn.Module) -> Any:
    """Return the model itself.

    Args:
        model: The model of a runner, wrapped or not.
    """
    return model.module if is_model_wrapper(model) else model


@MODEL_WRAPPERS.register_module()
class KPUDistributedDataParallel(MMDistributedDataParallel):
    """DDP around any model of OpenMMLab, for GPUs and CPUs.

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

    def train_step(self, data: dict[str, Any], optim_wrapper: OptimWrapper) -> dict[str, Any]:
        """Take one step.

        Args:
            data: What the loader yields.
            optim_wrapper: The optimiser's wrapper.

        Returns:
            The values for the log.
        """
        if getattr(self.module, 'backward', None) == 'per_stream':
            # Several backwards would exchange gradients several times; the
            # model exchanges the sum once, after the last stream.
            with self.no_sync():
                return self.module.train_step(data, optim_wrapper)
        return super().train_step(data, optim_wrapper)


@MODEL_WRAPPERS.register_module()
class Unwrapped:
    """Leaves a model as it is, where DDP would refuse it.

    DDP wants a parameter to train; a model that is only tested needs none.
    Its processes share the data and exchange no gradients.

    Args:
        module: The model, which is also the result.
    """

    def __new__(cls, module: nn.Module) -> nn.Module:  # type: ignore[misc]
        """Return the model itself."""
        return module
