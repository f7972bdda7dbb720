"""Estimate the statistics of the targets before training."""

from __future__ import annotations

from typing import Any

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from kpu_mm.models.normalizers import fit_normalizers
from kpu_mm.registry import HOOKS


@HOOKS.register_module()
class NormalizerFitHook(Hook):
    """Fit a distiller's normalisers to the first images of each stream.

    The images are those that training begins with, which does so as if
    nothing had happened. Does nothing where there are no normalisers, or a
    checkpoint brought their statistics.

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
        model: Any = runner.model
        if is_model_wrapper(model):
            model = model.module
        normalizers = [
            link.normalizer for link in getattr(model, 'links', {}).values()
        ]
        if all(n is None or n.fitted for n in normalizers):
            return
        if runner.iter > 0:
            raise RuntimeError(
                f'the checkpoint of iteration {runner.iter} was trained '
                'without the normalizer of the config: resume with '
                'model.normalizer=None, or start anew.'
            )
        loader: Any = runner.train_loop.dataloader
        loader.set_seed(runner.seed)
        try:
            # the very features that training will see, in its precision
            with runner.optim_wrapper.optim_context(runner.model):
                names = fit_normalizers(model, loader.loaders, self.num_images)
        finally:
            loader.close()
        runner.logger.info(
            f'Normalizers of {names} fitted to {self.num_images} images each.'
        )
