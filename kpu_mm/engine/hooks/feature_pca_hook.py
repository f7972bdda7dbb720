"""Pictures of what teachers and student see."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from mmengine.dist import master_only
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import Tensor

from kpu_mm.registry import HOOKS
from kpu_mm.visualization import feature_panel


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
        model = runner.model
        if is_model_wrapper(model):
            model = model.module
        model.eval()  # pictures must not move BatchNorm's statistics
        data = model.data_preprocessor(data_batch, False)
        for stream, batch in data['streams'].items():
            images = batch['images'][: self.num_images]
            mask = batch['mask']
            mask = None if mask is None else mask[: len(images)]
            for name in model.streams.of_stream[stream]:
                label = model.streams.label(name, stream).replace('/', '-')
                runner.visualizer.add_image(
                    f'pca_{label}',
                    _draw(model, name, images, mask),
                    step=batch_idx + 1,
                )
        model.train()


@torch.no_grad()
def _draw(
    model: Any, name: str, images: Tensor, mask: Tensor | None
) -> np.ndarray:
    """Panels of image, teacher and student, one below the other."""
    link = model.links[name]
    student, teacher = link.pair(
        model.student.encode(images, mask),
        link.targets(model.teachers[name].encode(images, mask)),
    )
    if link.s2t is not None:
        student = link.to_teacher(student, like=teacher)
    panels = [
        feature_panel(image, [teacher.maps[0][i], student.maps[0][i]])
        for i, image in enumerate(images)
    ]
    return np.concatenate(panels)
