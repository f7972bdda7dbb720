"""Layer-wise learning rates from the backbone's own depth."""

from __future__ import annotations

from typing import Any

from mmengine.optim import DefaultOptimWrapperConstructor
from torch import nn

from kpu_mm.registry import OPTIM_WRAPPER_CONSTRUCTORS


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class LayerDecayConstructor(DefaultOptimWrapperConstructor):
    """MMEngine's constructor with rates that fall towards the input.

    A parameter of the backbone at depth d of D learns with
    rate * ``layer_decay_rate`` ** (D - 1 - d), as in BEiT
    (https://arxiv.org/abs/2106.08254); necks and heads with the full rate.
    The depths are those of ``backbone.get_layer_depth``, which KPUBackbone
    and MMPretrain's backbones have, so models of all toolboxes can use it.
    Frozen parameters are left out; parameters with equal settings share a
    group.

    Args:
        optim_wrapper_cfg: Config of the optimiser wrapper.
        paramwise_cfg: ``layer_decay_rate``, and whatever else MMEngine's
            constructor knows, such as ``norm_decay_mult``.

    Raises:
        ValueError: If ``layer_decay_rate`` is missing or not in (0, 1].
    """

    def __init__(
        self, optim_wrapper_cfg: dict[str, Any], paramwise_cfg: dict[str, Any]
    ) -> None:
        super().__init__(optim_wrapper_cfg, paramwise_cfg)
        rate = self.paramwise_cfg.get('layer_decay_rate')
        if rate is None or not 0 < rate <= 1:
            raise ValueError(
                f'paramwise_cfg.layer_decay_rate is {rate}; set it to a '
                'number above 0 and up to 1, such as 0.7.'
            )
        self.rate: float = rate

    def add_params(
        self,
        params: list[dict[str, Any]],
        module: nn.Module,
        prefix: str = '',
        is_dcn_module: int | float | None = None,
    ) -> None:
        """Add the groups of a module, its parts included.

        Args:
            params: Groups, added to in place.
            module: The model, or in the recursion a part of it.
            prefix: Name of the part. Defaults to ''.
            is_dcn_module: As in MMEngine. Defaults to None.

        Raises:
            TypeError: If the model's backbone does not know its depths.
        """
        super().add_params(params, module, prefix, is_dcn_module)
        if prefix:
            return
        backbone: Any = getattr(module, 'backbone', None)
        if not hasattr(backbone, 'get_layer_depth'):
            raise TypeError(
                f'{type(module).__name__} has a backbone '
                f'{type(backbone).__name__} without get_layer_depth, which '
                'LayerDecayConstructor needs; choose another constructor.'
            )
        names = {p: name for name, p in module.named_parameters()}
        merged: dict[Any, dict[str, Any]] = {}
        for group in params:
            (parameter,) = group.pop('params')
            depth, count = backbone.get_layer_depth(
                names[parameter], 'backbone.'
            )
            lr = group.get('lr', self.base_lr)
            group['lr'] = lr * self.rate ** (count - 1 - depth)
            key = tuple(sorted(group.items()))
            merged.setdefault(key, dict(group, params=[]))
            merged[key]['params'].append(parameter)
        params[:] = merged.values()
