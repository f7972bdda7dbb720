"""Images as a model of open_clip was trained to take them."""

from __future__ import annotations

import numpy as np
from mmcv.transforms import BaseTransform
from open_clip.transform import image_transform
from PIL import Image

from kpu_mm.registry import TRANSFORMS

_MODES = ('shortest', 'longest', 'squash')
_INTERPOLATIONS = ('bicubic', 'bilinear', 'random')


@TRANSFORMS.register_module()
class OpenClipResize(BaseTransform):
    """Resize, crop and pad an image by open_clip's own transforms.

    Changed keys: ``img`` (RGB or BGR, (H, W, 3) uint8), ``img_shape``.

    Args:
        size: Height and width of the result.
        interpolation: 'bicubic' or 'bilinear'; 'random' is bicubic. Defaults
            to 'bicubic'.
        resize_mode: 'shortest' fills the size and is cropped, 'longest' fits
            into it and is padded, 'squash' changes the aspect ratio. Defaults
            to 'shortest'.
        fill_color: Value of the padding. Defaults to 0.

    Raises:
        ValueError: If open_clip knows no such mode or interpolation.
    """

    def __init__(
        self,
        size: tuple[int, int],
        interpolation: str = 'bicubic',
        resize_mode: str = 'shortest',
        fill_color: int = 0,
    ) -> None:
        if resize_mode not in _MODES or interpolation not in _INTERPOLATIONS:
            raise ValueError(
                f'the preprocessing of the model has resize_mode={resize_mode!r} and interpolation='
                f'{interpolation!r}; choose from {_MODES} and {_INTERPOLATIONS}.'
            )
        steps = image_transform(
            tuple(size),
            is_train=False,
            resize_mode=resize_mode,
            interpolation=interpolation,
            fill_color=fill_color,
        )
        # The last three make it RGB, a tensor, and normalised: the model does.
        self.steps = steps.transforms[:-3]

    def transform(self, results: dict) -> dict:
        """Change one image."""
        image = Image.fromarray(np.ascontiguousarray(results['img']))
        for step in self.steps:
            image = step(image)
        results['img'] = np.array(image)
        results['img_shape'] = results['img'].shape[:2]
        return results
