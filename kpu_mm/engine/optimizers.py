"""Which parameters an optimiser trains, at which rate, in which precision."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.device import get_device
from mmengine.optim import DefaultOptimWrapperConstructor, OptimWrapper
from mmengine.registry import OPTIMIZERS
from torch import nn

from kpu_mm.registry import OPTIM_WRAPPER_CONSTRUCTORS, OPTIM_WRAPPERS


@OPTIM_WRAPPERS.register_module()
class AutocastOptimWrapper(OptimWrapper):
    """Autocast to bfloat16 on any device.

    bfloat16 has float32's range, so nothing needs scaling; for float16 use
    MMEngine's ``AmpOptimWrapper``, which scales the loss. Takes the
    arguments of MMEngine's ``OptimWrapper``.

    Raises:
        RuntimeError: If the GPU has no bfloat16, as those before Ampere.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # torch would emulate it, slowly, and say nothing.
        if get_device() == 'cuda' and not torch.cuda.is_bf16_supported(including_emulation=False):
            raise RuntimeError(
                f'{torch.cuda.get_device_name()} does not compute in bfloat16: set '
                "optim_wrapper.type='OptimWrapper' for float32, or 'AmpOptimWrapper' for float16."
            )

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Autocast the forward pass.

        Args:
            model: The model that trains.
        """
        device = get_device().split(':')[0]  # 'cuda:0' -> 'cuda'
        with super().optim_context(model), torch.autocast(device, dtype=torch.bfloat16):
            yield


class FusedConstructor(DefaultOptimWrapperConstructor):
    """MMEngine's constructor with fused kernels on CUDA.

    An optimiser that has them (Adam, AdamW, SGD) uses them there unless its
    config sets ``fused``, also when it resumes a run of another machine. A
    fused Adam counts its steps on the GPU; any other would ask the GPU for
    the count of each resumed parameter in every step.
    """

    optimizer_cfg: dict[str, Any]

    def __call__(self, model: nn.Module) -> OptimWrapper:
        """Build the optimiser wrapper.

        Args:
            model: The model, wrapped or not.
        """
        kind = self.optimizer_cfg['type']
        kind = kind if isinstance(kind, type) else OPTIMIZERS.get(kind)
        on_gpu = any(p.is_cuda for p in model.parameters())
        if on_gpu and 'fused' in inspect.signature(kind).parameters:
            self.optimizer_cfg = {'fused': True, **self.optimizer_cfg}
        wrapper = self.wrap(model)
        wrapper.optimizer.register_load_state_dict_pre_hook(_keep_fused)
        return wrapper

    def wrap(self, model: nn.Module) -> OptimWrapper:
        """Build the optimiser wrapper, once its kernels are chosen.

        Args:
            model: The model, wrapped or not.
        """
        return super().__call__(model)


def _keep_fused(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Hook before ``load_state_dict()``: kernels are not the checkpoint's."""
    for saved, own in zip(state['param_groups'], optimizer.param_groups, strict=False):
        if 'fused' in own:
            saved['fused'] = own['fused']


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class TrainableConstructor(FusedConstructor):
    """MMEngine's constructor without the frozen parameters.

    With ``paramwise_cfg`` it is MMEngine's own, which leaves them out too.
    In both cases the parameters of a module with ``no_weight_decay = True``
    (a balancer) are not decayed. Takes the arguments of MMEngine's
    ``DefaultOptimWrapperConstructor``.
    """

    def wrap(self, model: nn.Module) -> OptimWrapper:
        """Build the optimiser wrapper.

        Args:
            model: The model, wrapped or not.

        Raises:
            ValueError: If nothing in the model is trained.
        """
        # Without paramwise_cfg MMEngine hands all parameters to the
        # optimiser, the frozen ones too.
        if self.paramwise_cfg:
            return super().wrap(model)
        params = [p for p in model.parameters() if p.requires_grad]
        if not params:
            raise ValueError('every parameter of the model is frozen: there is nothing to train.')
        undecayed = _undecayed(model)
        groups: list[Any] = [p for p in params if p not in undecayed]
        if undecayed:
            rest = [p for p in params if p in undecayed]
            groups = [dict(params=groups), dict(params=rest, weight_decay=0.0)]
        optimizer = OPTIMIZERS.build(dict(self.optimizer_cfg, params=groups))
        return OPTIM_WRAPPERS.build(
            {'type': 'OptimWrapper', **self.optim_wrapper_cfg},
            default_args=dict(optimizer=optimizer),
        )

    def add_params(
        self,
        params: list[dict[str, Any]],
        module: nn.Module,
        prefix: str = '',
        is_dcn_module: int | float | None = None,
    ) -> None:
        """Add the groups of a module and of its parts.

        Args:
            params: Groups of one parameter each, added to in place.
            module: The model, or in the recursion a part of it.
            prefix: Name of the part. Defaults to ''.
            is_dcn_module: As in MMEngine. Defaults to None.
        """
        super().add_params(params, module, prefix, is_dcn_module)
        if not prefix:  # after the recursion, when all groups are there
            undecayed = _undecayed(module)
            for group in params:
                if undecayed.intersection(group['params']):
                    group['weight_decay'] = 0.0


def _undecayed(model: nn.Module) -> set[nn.Parameter]:
    return {
        p
        for module in model.modules()
        if getattr(module, 'no_weight_decay', False) is True
        for p in module.parameters()
        if p.requires_grad
    }


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class LayerDecayConstructor(FusedConstructor):
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

    def __init__(self, optim_wrapper_cfg: dict[str, Any], paramwise_cfg: dict[str, Any]) -> None:
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
        """Add the groups of a module and of its parts.

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
                f'{type(module).__name__} has a backbone {type(backbone).__name__} without '
                'get_layer_depth, which LayerDecayConstructor needs; choose another constructor.'
            )
        names = {p: name for name, p in module.named_parameters()}
        merged: dict[Any, dict[str, Any]] = {}
        for group in params:
            (parameter,) = group.pop('params')
            # Necks and heads come back with the largest depth.
            depth, count = backbone.get_layer_depth(names[parameter], 'backbone.')
            lr = group.get('lr', self.base_lr)
            group['lr'] = lr * self.rate ** (count - 1 - depth)
            # Fused optimisers work on a group at a time: fewer are faster.
            key = tuple(sorted(group.items()))
            merged.setdefault(key, dict(group, params=[]))
            merged[key]['params'].append(parameter)
        params[:] = merged.values()
