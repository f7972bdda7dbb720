"""Hooks that watch over the steps: gradients, losses and skipped images."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NoReturn

import torch
from mmengine.dist import all_gather_object, get_world_size
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from kpu_mm.registry import HOOKS

from .model_wrappers import unwrap
from .resume import ComparedResume

_COUNT = 'skipped_images'  # its key in the message hub


@HOOKS.register_module()
class NonFiniteHook(Hook):
    """Raise when a logged loss, or a weight to be saved, is NaN or infinite."""

    # Before checkpoints are written, so that the broken state is not saved.
    priority = 'VERY_HIGH'

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Mapping[str, float | Tensor] | None = None,
    ) -> None:
        """Check the losses of one iteration.

        Args:
            runner: The runner.
            batch_idx: The iteration.
            data_batch: Its data. Defaults to None.
            outputs: Its logged values. Defaults to None.

        Raises:
            FloatingPointError: If one is not finite.
        """
        values = dict(outputs or {})
        tensors = {k: v for k, v in values.items() if isinstance(v, Tensor)}
        if tensors:
            # One transfer for all: each would wait for the GPU.
            means = [v.detach().float().mean() for v in tensors.values()]
            values |= zip(tensors, torch.stack(means).tolist(), strict=True)
        bad = [f'{k} = {v}' for k, v in values.items() if not math.isfinite(v)]
        if bad:
            _stop(runner, f'iteration {batch_idx + 1}: {", ".join(bad)}')

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Check the weights of a checkpoint, which a finite loss does not make finite.

        Args:
            runner: The runner.
            checkpoint: What it saves.

        Raises:
            FloatingPointError: If one is not finite.
        """
        trained = {n: p for n, p in unwrap(runner.model).named_parameters() if p.requires_grad}
        bad = [name for name, p in trained.items() if not p.isfinite().all()]
        if bad:
            _stop(runner, f'iteration {runner.iter}: {bad[0]} is not finite after its step')


def _stop(runner: Runner, fault: str) -> NoReturn:
    # MMEngine's own runner knows no such option.
    other = '' if isinstance(runner, ComparedResume) else 'runner_type=kpu_mm.KPURunner '
    raise FloatingPointError(
        f'{fault}. The checkpoints in {runner.work_dir} are from before it. Continue with a '
        f'lower rate: --resume --cfg-options {other}resume_schedule=config '
        'optim_wrapper.optimizer.lr=RATE; or clip gradients: --resume --cfg-options '
        'optim_wrapper.clip_grad.max_norm=NORM.'
    )


@HOOKS.register_module()
class ModuleClipHook(Hook):
    """Clip the gradient norms of several modules, each by itself.

    With ``optim_wrapper.clip_grad`` all parameters share one norm: where
    tasks learn together, the largest gradient decides how far those of the
    others are scaled down, and how much that changes from step to step.
    Logs ``grad_norm/<module>``, before clipping.

    Args:
        max_norm: Largest 2-norm of the gradient of each module, by its name
            in the model, such as ``{'tasks.coco': 0.01}``. Gradients of
            other parameters stay as they are.
    """

    def __init__(self, max_norm: Mapping[str, float]) -> None:
        self._max_norm = dict(max_norm)
        self._handle: RemovableHandle | None = None

    def before_train(self, runner: Runner) -> None:
        """Clip before each step of the optimiser.

        Args:
            runner: The runner.

        Raises:
            ValueError: If the model has no such module, or nothing in it
                trains.
        """
        parts = {name: _trained(runner.model, name) for name in self._max_norm}
        optimizer = runner.optim_wrapper.optimizer

        def clip(*_: Any) -> None:
            # GradScaler leaves it to a fused optimiser to unscale the
            # gradients of float16, which its kernel does after its hooks.
            if (scale := getattr(optimizer, 'grad_scale', None)) is not None:
                groups = optimizer.param_groups
                grads = [p.grad for g in groups for p in g['params'] if p.grad is not None]
                torch._foreach_div_(grads, scale)
                optimizer.grad_scale = None
            for name, parameters in parts.items():
                norm = nn.utils.clip_grad_norm_(parameters, self._max_norm[name])
                runner.message_hub.update_scalar(f'train/grad_norm/{name}', norm)

        # Here gradients are complete: accumulated, and averaged over all ranks.
        self._handle = optimizer.register_step_pre_hook(clip)

    def after_train(self, runner: Runner) -> None:
        """Leave the optimiser as it was.

        Args:
            runner: The runner.
        """
        if self._handle is not None:
            self._handle.remove()


def _trained(model: nn.Module, name: str) -> list[nn.Parameter]:
    """Return the parameters of a module that train."""
    modules = dict(unwrap(model).named_modules())
    if name not in modules:
        raise ValueError(
            f'ModuleClipHook: the model has no module {name!r}; it has '
            f'{sorted(n for n in modules if n.count(".") < 2 and n)}.'
        )
    trained = [p for p in modules[name].parameters() if p.requires_grad]
    if not trained:
        raise ValueError(
            f'ModuleClipHook: nothing in {name!r} trains, so there is '
            'nothing to clip; remove it from max_norm.'
        )
    return trained


@HOOKS.register_module()
class SkippedImagesHook(Hook):
    """Log the skipped images of all ranks; stop when they are too many.

    Args:
        max_share: Largest tolerated share of skipped images. Defaults to
            0.01.
        min_images: Images of a run before its share counts. Defaults to
            1000.
        interval: Iterations between two exchanges among ranks. Defaults to
            50.
    """

    def __init__(self, max_share: float = 0.01, min_images: int = 1000, interval: int = 50) -> None:
        self.max_share = max_share
        self.min_images = min_images
        self.interval = interval
        self._pending: list[tuple[str, str]] = []
        self._images_per_iteration = 0

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Collect what the loaders skipped.

        Args:
            runner: The runner.
            batch_idx: The iteration.
            data_batch: ``dict(streams={name: batch})``. Defaults to None.
        """
        streams = data_batch['streams'].values()
        self._images_per_iteration = sum(len(b['images']) for b in streams)
        for batch in streams:
            self._pending += batch['skipped']
        if (batch_idx + 1) % self.interval == 0:
            self._report(runner, batch_idx + 1)

    def after_train(self, runner: Runner) -> None:
        """Report the rest.

        Args:
            runner: The runner.
        """
        # A finished run that is resumed has had no batch, which would tell
        # how many images an iteration takes.
        if self._images_per_iteration:
            self._report(runner, runner.iter)

    def _report(self, runner: Runner, iterations: int) -> None:
        ranks = all_gather_object(self._pending)
        skipped = [image for pending in ranks for image in pending]
        self._pending = []
        for name, reason in skipped:
            runner.logger.warning(f'skipped {name}: {reason}')
        hub = runner.message_hub
        # The message hub is part of the checkpoint, unlike this hook.
        known = hub.get_info(_COUNT) if _COUNT in hub.runtime_info else 0
        count = known + len(skipped)
        hub.update_info(_COUNT, count)
        # A skipped image is replaced, so batches hold only the others.
        used = iterations * self._images_per_iteration * get_world_size()
        total = used + count
        if skipped:
            runner.logger.warning(f'{count} of {total} images skipped so far.')
        if total >= self.min_images and count > self.max_share * total:
            raise RuntimeError(
                f'{count} of {total} images could not be read, more than '
                f'max_share={self.max_share}; the log names them. Repair or '
                'remove them, or raise max_share of SkippedImagesHook.'
            )
