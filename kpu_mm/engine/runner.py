"""The runner, which never leaves a half-written checkpoint behind."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner

from kpu_mm.datasets import MultiStreamLoader
from kpu_mm.registry import RUNNERS

from .atomic_checkpoints import AtomicCheckpoints
from .resume import ComparedResume

# the names of MMEngine's default hooks
_OWN_HOOKS = ('runtime_info', 'timer', 'sampler_seed', 'logger', 'param_scheduler', 'checkpoint')


@RUNNERS.register_module()
class KPURunner(AtomicCheckpoints, ComparedResume, Runner):
    """MMEngine's Runner with atomic checkpoints and a careful resume."""

    _train_dataloader: Any

    def setup_env(self, env_cfg: dict[str, Any]) -> None:
        """Set up processes and GPUs.

        Args:
            env_cfg: As MMEngine takes it; with ``tf32=True``, products of
                float32 matrices are computed in TF32 on GPUs that have it.
        """
        super().setup_env(env_cfg)
        # The way that all versions of torch have.
        if torch.cuda.is_available():
            torch.set_float32_matmul_precision('high' if env_cfg.get('tf32') else 'highest')

    def register_default_hooks(self, hooks: dict[str, Any] | None = None) -> None:
        """Register hooks by name; None leaves a hook of a base config out.

        MMEngine takes None for its own names alone.

        Args:
            hooks: A hook or None for each name. Defaults to None, MMEngine's.
        """
        given = hooks or {}
        super().register_default_hooks(
            {name: hook for name, hook in given.items() if hook is not None or name in _OWN_HOOKS}
        )

    def scale_lr(
        self, optim_wrapper: OptimWrapper, auto_scale_lr: dict[str, Any] | None = None
    ) -> None:
        """Scale the rate by the batch size, that of all streams together.

        Args:
            optim_wrapper: The optimizer, before schedulers are built.
            auto_scale_lr: ``enable``, and ``base_batch_size``, the images of
                all streams and processes that the rate is meant for.
                Defaults to None, the rate stays.

        Raises:
            ValueError: If ``base_batch_size`` is missing or no number from 1
                on.
        """
        if auto_scale_lr is None or not auto_scale_lr.get('enable', False):
            return
        base = auto_scale_lr.get('base_batch_size')
        if not isinstance(base, int) or base < 1:
            raise ValueError(
                f'auto_scale_lr.base_batch_size is {base}; set it to the batch size that '
                'optim_wrapper.optimizer.lr is meant for, the images of all streams and GPUs in '
                'one step.'
            )
        loaders = self._train_dataloader
        # MMEngine reads one batch size from the config of the loader.
        if isinstance(self.train_dataloader, MultiStreamLoader):
            self._train_dataloader = dict(batch_size=self.train_dataloader.batch_size)
        super().scale_lr(optim_wrapper, auto_scale_lr)
        self._train_dataloader = loaders
