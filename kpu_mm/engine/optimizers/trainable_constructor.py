"""An optimiser over what is trained, and nothing else."""

from __future__ import annotations

from mmengine.optim import DefaultOptimWrapperConstructor, OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS, OPTIMIZERS
from torch import nn

from kpu_mm.registry import OPTIM_WRAPPER_CONSTRUCTORS


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class TrainableConstructor(DefaultOptimWrapperConstructor):
    """MMEngine's constructor without the frozen parameters.

    With ``paramwise_cfg`` it is MMEngine's own, which leaves them out too.
    """

    def __call__(self, model: nn.Module) -> OptimWrapper:
        """Build the optimiser wrapper.

        Args:
            model: The model, wrapped or not.

        Raises:
            ValueError: If nothing in the model is trained.
        """
        if self.paramwise_cfg:
            return super().__call__(model)
        params = [p for p in model.parameters() if p.requires_grad]
        if not params:
            raise ValueError(
                'every parameter of the model is frozen: there is nothing '
                'to train.'
            )
        optimizer = OPTIMIZERS.build(dict(self.optimizer_cfg, params=params))
        cfg = dict(self.optim_wrapper_cfg)
        cfg.setdefault('type', 'OptimWrapper')
        return OPTIM_WRAPPERS.build(
            cfg, default_args=dict(optimizer=optimizer)
        )
