"""Runners that never leave a half-written checkpoint behind."""

from __future__ import annotations

from typing import Any

from mmengine.optim import OptimWrapper
from mmengine.runner import FlexibleRunner, Runner
from torch.utils.data import DataLoader

from kpu_mm.datasets import MultiStreamLoader
from kpu_mm.registry import RUNNERS

from .atomic_checkpoints import AtomicCheckpoints
from .resume import ComparedResume


@RUNNERS.register_module()
class KPURunner(AtomicCheckpoints, ComparedResume, Runner):
    """MMEngine's Runner with atomic checkpoints and a careful resume."""

    _train_dataloader: Any

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


@RUNNERS.register_module()
class KPUFlexibleRunner(AtomicCheckpoints, ComparedResume, FlexibleRunner):
    """MMEngine's FlexibleRunner (FSDP, DeepSpeed) for several streams."""

    writes_folders = True

    @property
    def train_dataloader(self) -> Any:
        """The loader that FlexibleRunner measures: one of torch's own.

        Strategies log its batch size and the length of an epoch, or use them
        as defaults; the train loop itself advances all streams.

        Raises:
            ValueError: If ``auto_scale_lr`` is to scale by that batch size.
        """
        loader: DataLoader | MultiStreamLoader = super().train_dataloader
        if isinstance(loader, MultiStreamLoader):
            if (self._auto_scale_lr or {}).get('enable', False):
                raise ValueError(
                    'auto_scale_lr does not know the batch size of several streams with '
                    'KPUFlexibleRunner; set optim_wrapper.optimizer.lr yourself, or use KPURunner.'
                )
            return next(iter(loader.loaders.values()))
        return loader
