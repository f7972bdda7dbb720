"""An optimiser over what is trained, and nothing else."""

from __future__ import annotations

from typing import Any

from mmengine.optim import DefaultOptimWrapperConstructor, OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS, OPTIMIZERS
from torch import nn

from kpu_mm.registry import OPTIM_WRAPPER_CONSTRUCTORS


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class TrainableConstructor(DefaultOptimWrapperConstructor):
    """MMEngine's constructor without the frozen parameters.

    With ``paramwise_cfg`` it is MMEngine's own, which leaves them out too.
    In both cases parameters of a module that says ``no_weight_decay = True``
    (a balancer) are not decayed.
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
        plain = _undecayed(model)
        groups: list[Any] = [p for p in params if p not in plain]
        if plain:
            groups = [
                dict(params=groups),
                dict(
                    params=[p for p in params if p in plain], weight_decay=0.0
                ),
            ]
        optimizer = OPTIMIZERS.build(dict(self.optimizer_cfg, params=groups))
        cfg = dict(self.optim_wrapper_cfg)
        cfg.setdefault('type', 'OptimWrapper')
        return OPTIM_WRAPPERS.build(
            cfg, default_args=dict(optimizer=optimizer)
        )

    def add_params(
        self,
        params: list[dict[str, Any]],
        module: nn.Module,
        prefix: str = '',
        is_dcn_module: int | float | None = None,
    ) -> None:
        """Add the groups of a module, its parts included.

        Args:
            params: Groups of one parameter each, added to in place.
            module: The model, or in the recursion a part of it.
            prefix: Name of the part. Defaults to ''.
            is_dcn_module: As in MMEngine. Defaults to None.
        """
        super().add_params(params, module, prefix, is_dcn_module)
        if not prefix:
            plain = _undecayed(module)
            for group in params:
                if plain.intersection(group['params']):
                    group['weight_decay'] = 0.0


def _undecayed(model: nn.Module) -> set[nn.Parameter]:
    return {
        p
        for module in model.modules()
        if getattr(module, 'no_weight_decay', False) is True
        for p in module.parameters()
        if p.requires_grad
    }
