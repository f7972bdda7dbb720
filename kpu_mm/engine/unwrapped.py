"""Several processes that share data, but no gradients."""

from __future__ import annotations

from torch import nn

from kpu_mm.registry import MODEL_WRAPPERS


@MODEL_WRAPPERS.register_module()
class Unwrapped:
    """Leaves a model as it is, where DistributedDataParallel would refuse.

    That wants a parameter to train; a model that is only tested needs none.

    Args:
        module: The model, which is also the result.
    """

    def __new__(cls, module: nn.Module) -> nn.Module:  # type: ignore[misc]
        """Give the model back."""
        return module
