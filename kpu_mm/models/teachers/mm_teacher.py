"""The backbone of any OpenMMLab model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine import Config
from mmengine.hub import get_config
from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import DefaultScope
from torch import Tensor, nn

from kpu_mm.registry import MODELS
from kpu_mm.structures import Features
from kpu_mm.weights.state_dict import load_state, select_prefix

from .base_teacher import BaseTeacher


@MODELS.register_module()
class MMTeacher(BaseTeacher):
    """The maps of a detector's, segmentor's or classifier's backbone.

    Normalisation and channel order are those of the config's
    ``data_preprocessor``, whose pipeline is taken to read images as BGR, as
    OpenMMLab's does. There is no summary.

    Args:
        config: A config file, or a name such as
            'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'.
        checkpoint: Weights of the model in a local file.
        with_neck: Give the maps of the neck instead. Defaults to False.
        size_divisor: Resize images to multiples of this, for backbones that
            would crop. Defaults to 1.

    Raises:
        RuntimeError: If the weights don't fit.
        ValueError: If the config lacks what is needed.
    """

    backbone: nn.Module

    casts_whole = False  # OpenMMLab's models are written for autocast

    def __init__(
        self, config: str, checkpoint: str, with_neck: bool = False, size_divisor: int = 1
    ) -> None:
        whole = _read(config)
        model: Any = whole.get('model')
        parts = ('backbone', 'neck') if with_neck else ('backbone',)
        for part in parts:
            if not model or not model.get(part):
                raise ValueError(f"the config '{config}' has no {part}")
        key = 'data_preprocessor'
        images = model.get(key) or whole.get(key)
        if not images or not images.get('mean') or not images.get('std'):
            raise ValueError(
                f"the data_preprocessor of '{config}' has no mean and std: "
                'add them, on the [0, 255] scale'
            )
        swaps = ('bgr_to_rgb', 'rgb_to_bgr', 'to_rgb')
        is_rgb = any(images.get(key) for key in swaps)
        mean, std = ([value / 255 for value in images[key]] for key in ('mean', 'std'))
        # the config's statistics are in the order of the model's channels
        order = 1 if is_rgb else -1
        super().__init__(mean[::order], std[::order], size_divisor=size_divisor)
        self.is_rgb = is_rgb
        scope = whole.get('default_scope')
        state = load_state(checkpoint)
        self.neck: Any = None
        for part in parts:
            with DefaultScope.overwrite_default_scope(scope):
                module = MMENGINE_MODELS.build(model[part])
            _fill(module, part, state, checkpoint)
            setattr(self, part, module)
        self.probe()

    def extract(self, images: Tensor, mask: Tensor | None) -> Features:
        """Run the backbone, and the neck if asked for.

        Args:
            images: Normalised RGB images, (B, 3, H, W).
            mask: Not used: padding is zero and part of the image.

        Returns:
            The maps (B, C, H, W).
        """
        # RGB -> BGR
        maps = self.backbone(images if self.is_rgb else images.flip(1))
        if self.neck is not None:
            maps = self.neck(maps)
        several = isinstance(maps, tuple | list)
        return Features(None, tuple(maps) if several else (maps,))


def _read(config: str) -> Config:
    # A dict, which an exported folder could hold, would let MMEngine import
    # whatever its types spell; a file is code that the user has written.
    if not isinstance(config, str):
        raise ValueError(
            'config must be a file or a name such as '
            f"'mmdet::faster_rcnn/....py', but is {config!r}"
        )
    if '::' in config:
        return get_config(config)
    if not Path(config).is_file():
        raise ValueError(f"the config file '{config}' does not exist")
    return Config.fromfile(config)


def _fill(module: nn.Module, part: str, state: Mapping[str, Tensor], checkpoint: str) -> None:
    """Fill a part of a model from the whole one's weights, strictly."""
    own = select_prefix(state, f'{part}.')
    if not own:
        raise RuntimeError(
            f"'{checkpoint}' has no weights of a {part}; pass the checkpoint of the whole model"
        )
    try:
        module.load_state_dict(own)
    except RuntimeError as error:
        text = ' '.join(str(error).split())[:300]
        raise RuntimeError(
            f"the {part} in '{checkpoint}' does not fit the config: {text}"
        ) from error
