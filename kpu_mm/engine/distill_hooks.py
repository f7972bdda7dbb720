"""Hooks of distillation: normalisers, balancers and feature pictures."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from mmengine.dist import master_only
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmengine.utils.dl_utils.parrots_wrapper import _BatchNorm
from torch import Tensor

from kpu_mm.analysis.distilled import extract_pairs
from kpu_mm.models.normalizers import fit_normalizers
from kpu_mm.registry import HOOKS
from kpu_mm.visualization import feature_panel

from .model_wrappers import unwrap


@HOOKS.register_module()
class NormalizerFitHook(Hook):
    """Fit a distiller's normalisers to the first images of each stream.

    The images are those that training begins with, and the fit changes
    neither their order nor any random state. Nothing happens where there are
    no normalisers, or a checkpoint brought their statistics.

    Args:
        num_images: Images of each stream, shared by all processes and
            rounded up to whole batches. Defaults to 4096.

    Raises:
        ValueError: If that is no positive number.
    """

    def __init__(self, num_images: int = 4096) -> None:
        if num_images < 1:
            raise ValueError(f'num_images={num_images}: take 1 at least.')
        self.num_images = num_images

    def before_train(self, runner: Runner) -> None:
        """Fit what has no statistics yet.

        Args:
            runner: The runner.

        Raises:
            RuntimeError: If the run is resumed from a checkpoint that was
                trained without them.
            ValueError: If the features of a teacher do not define a
                normaliser.
        """
        model = unwrap(runner.model)
        # Downstream models have no links, distillers may have no normaliser.
        links = getattr(model, 'links', {}).values()
        normalizers = [link.normalizer for link in links]
        if all(n is None or n.fitted for n in normalizers):
            return
        # A resumed run would learn other targets from one step to the next.
        if runner.iter > 0:
            raise RuntimeError(
                f'the checkpoint of iteration {runner.iter} was trained without the normalizer of '
                'the config: resume with model.normalizer=None, or start anew.'
            )
        loader: Any = runner.train_loop.dataloader
        loader.set_seed(runner.seed)
        try:
            # The precision of training, or the statistics are of others.
            with runner.optim_wrapper.optim_context(runner.model):
                names = fit_normalizers(model, loader.loaders, self.num_images)
        finally:
            # Training starts the workers again, from the first image.
            loader.close()
        runner.logger.info(f'Normalizers of {names} fitted to {self.num_images} images each.')


@HOOKS.register_module()
class NormEvalHook(Hook):
    """Let a student learn the rest of its training with fixed norm statistics.

    In training, batch norms take the statistics of each stream's batch; in
    inference, running ones, a mixture of all streams. From some iteration on
    the student is trained with the latter, so that both are the same. They
    are means over the iterations just before, as PreciseBN's
    (https://arxiv.org/abs/2105.07576), since MMEngine's moving average holds
    little but the last few batches. What an iteration does follows from its
    number, so that runs resume exactly.

    Args:
        begin: Share of the training after which statistics stay. Defaults
            to 0.5.
        window: Iterations whose statistics are averaged. Defaults to 200.

    Raises:
        ValueError: If the share is not between 0 and 1, or the window empty.
    """

    def __init__(self, begin: float = 0.5, window: int = 200) -> None:
        if not 0 < begin < 1 or window < 1:
            raise ValueError(
                f'begin={begin}, window={window}: give a share of the training between 0 and 1, '
                'and one iteration at least.'
            )
        self.begin = begin
        self.window = window

    def before_train(self, runner: Runner) -> None:
        """Check the model.

        Args:
            runner: The runner.

        Raises:
            ValueError: If it has no student with an option ``norm_eval``.
        """
        model = unwrap(runner.model)
        if not hasattr(getattr(model, 'student', None), 'norm_eval'):
            raise ValueError(
                f'{type(model).__name__} has no kpu_mm.KPUBackbone for a student, so there are no '
                'batch norms whose statistics could stay; leave kpu_mm.NormEvalHook out, with '
                'default_hooks=dict(norm_eval=None).'
            )

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Start to average the statistics, or keep them.

        Args:
            runner: The runner.
            batch_idx: The iteration.
            data_batch: Not used. Defaults to None.
        """
        student = unwrap(runner.model).student
        end = int(self.begin * runner.max_iters)
        start = max(0, end - self.window)
        if start <= batch_idx < end:
            for module in student.modules():
                if isinstance(module, _BatchNorm):
                    module.momentum = None  # the mean of all batches since the reset
                    if batch_idx == start:
                        module.reset_running_stats()
        elif batch_idx >= end and not student.norm_eval:
            student.norm_eval = True
            student.train(student.training)


@HOOKS.register_module()
class SecondLossHook(Hook):
    """Give a distiller's balancer the losses before and after each step.

    FAMO (https://arxiv.org/abs/2306.03792) needs it: one more forward of
    student and projectors on the same images, with the same random numbers.
    Does nothing for balancers that do not learn from it.
    """

    # Before the moving average and the checkpoint of the same iteration.
    priority = 'VERY_HIGH'

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: dict[str, float] | None = None,
    ) -> None:
        """Compute the losses once more, if the optimiser made a step.

        Args:
            runner: The runner.
            batch_idx: The iteration.
            data_batch: Not used. Defaults to None.
            outputs: Not used. Defaults to None.
        """
        model = unwrap(runner.model)
        # Downstream runs share the default hooks, and their models have none.
        forward = getattr(model, 'second_forward', None)
        if forward is None:
            return
        model.second_forward = None
        # While gradients accumulate there is no step to learn from.
        if runner.optim_wrapper.should_update():
            with runner.optim_wrapper.optim_context(model):
                model.balancer.after_step(forward())


@HOOKS.register_module()
class FeaturePCAHook(Hook):
    """Log panels of image, teacher and student features every N steps.

    Where the distiller has s2t projectors the student is shown in the
    teacher's space, in the teacher's colours, else in its own.

    Args:
        interval: Iterations between panels. Defaults to 1000.
        num_images: Images of each stream's batch to draw. Defaults to 2.
    """

    def __init__(self, interval: int = 1000, num_images: int = 2) -> None:
        self.interval = interval
        self.num_images = num_images

    @master_only
    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: dict[str, float] | None = None,
    ) -> None:
        """Draw one panel for each teacher.

        Args:
            runner: The runner.
            batch_idx: The iteration.
            data_batch: ``dict(streams={name: batch})``. Defaults to None.
            outputs: Its logged values. Defaults to None.
        """
        last = batch_idx + 1 == runner.max_iters
        if not last and (batch_idx + 1) % self.interval:
            return
        model = unwrap(runner.model)
        # Pictures must not move BatchNorm's statistics.
        model.eval()
        data = model.data_preprocessor(data_batch, False)
        for stream, batch in data['streams'].items():
            images = batch['images'][: self.num_images]
            mask = batch['mask']
            mask = None if mask is None else mask[: len(images)]
            for name in model.streams.of_stream[stream]:
                label = model.streams.label(name, stream).replace('/', '-')
                runner.visualizer.add_image(
                    f'pca_{label}', _draw(model, name, images, mask), step=batch_idx + 1
                )
        model.train()


@torch.no_grad()
def _draw(model: Any, name: str, images: Tensor, mask: Tensor | None) -> np.ndarray:
    """Draw image, teacher and student of each image, one below the other."""
    link = model.links[name]
    student, teacher = extract_pairs(model, name, images, mask)
    if link.s2t is not None:
        student = link.to_teacher(student, like=teacher)
    panels = [
        feature_panel(image, [teacher.maps[0][i], student.maps[0][i]])
        for i, image in enumerate(images)
    ]
    return np.concatenate(panels)
