"""Load the images of labelled data, and compare them with their labels."""

from __future__ import annotations

from typing import Any

import numpy as np
from mmcv.transforms import BaseTransform
from mmengine.fileio import get

from kpu_mm.registry import TRANSFORMS

from .encoded_image import MAX_RATIO, CorruptImageError, DataError, EncodedImage

_ORIENTATIONS = ('exif', 'ignore')


@TRANSFORMS.register_module()
class LoadImageFromFile(BaseTransform):
    """Load an image through :class:`EncodedImage`, as all of this package does.

    Takes the place of the toolboxes' transform of this name, by which their
    Inferencers look for it: configs write ``type='LoadImageFromFile',
    _scope_='kpu_mm'``. If the dataset
    states ``height`` and ``width``, as MMDetection's do, they are compared
    with the file's.

    Required key: ``img_path``. Added keys: ``img`` (BGR, (H, W, 3) uint8),
    ``img_shape``, ``ori_shape``.

    Args:
        orientation: 'exif' turns images as their EXIF data say; 'ignore'
            leaves them as they are stored, for labels that were drawn so.
            Defaults to 'exif'.
        to_float32: Whether ``img`` is float32. Defaults to False.
        max_ratio: An image whose sides differ by a larger factor is an error.
            Defaults to 100.
        backend_args: Where MMEngine reads files from. Defaults to None, the
            path's own.

    Raises:
        ValueError: If there is no such orientation.
    """

    def __init__(
        self,
        orientation: str = 'exif',
        to_float32: bool = False,
        max_ratio: float = MAX_RATIO,
        backend_args: dict[str, Any] | None = None,
    ) -> None:
        if orientation not in _ORIENTATIONS:
            raise ValueError(f"`orientation` is '{orientation}'; choose one of {_ORIENTATIONS}.")
        self.orientation = orientation
        self.to_float32 = to_float32
        self.max_ratio = max_ratio
        self.backend_args = backend_args

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Load one image.

        Args:
            results: With ``img_path``, and perhaps ``height`` and ``width``.

        Raises:
            DataError: If the image cannot be decoded, or is of another size
                than its labels say.
        """
        path = results['img_path']
        try:
            data = get(path, backend_args=self.backend_args)
            image = EncodedImage(data, path, None, self.max_ratio, self.orientation)
            self._compare(path, image.size, results.get('height'), results.get('width'))
            pixels = image.pixels(image.size, bgr=True)
            image.warn_of_damage()
        except OSError as error:
            raise DataError(f"'{path}' cannot be read ({error.strerror or error}).") from error
        except CorruptImageError as error:
            raise DataError(
                f"'{path}' is not an image that can be decoded ({error.reason}); replace it, or "
                'remove it from the dataset.'
            ) from error
        results['img'] = pixels.astype('float32') if self.to_float32 else pixels
        results['img_shape'] = results['ori_shape'] = pixels.shape[:2]
        return results

    def _compare(
        self, path: str, size: tuple[int, int], height: int | None, width: int | None
    ) -> None:
        """Raise if the labels state another size."""
        if height is None or width is None or size == (height, width):
            return
        remedy = 'correct height and width in the annotation file, or replace the image'
        if size == (width, height):
            other = next(o for o in _ORIENTATIONS if o != self.orientation)
            remedy = (
                f'if the labels were drawn on the image turned so, write '
                f"LoadImageFromFile(orientation='{other}'); otherwise {remedy}"
            )
        raise DataError(
            f"'{path}' is {size[1]} x {size[0]} pixels (width x height) and its labels say "
            f'{width} x {height}: {remedy}.'
        )

    def __repr__(self) -> str:
        return f'LoadImageFromFile(orientation={self.orientation!r})'


@TRANSFORMS.register_module()
class InferencerLoader(LoadImageFromFile):
    """Load an image from a file, or take an array.

    MMSegmentation's Inferencer puts it in the place of ``LoadImageFromFile``,
    in the same scope.
    """

    def transform(self, results: str | np.ndarray | dict[str, Any]) -> dict[str, Any]:
        """Load one image.

        Args:
            results: A path, an array (H, W, 3) in BGR, or what
                LoadImageFromFile takes.

        Raises:
            DataError: If the image cannot be decoded.
        """
        if isinstance(results, np.ndarray):
            shape = results.shape[:2]
            return dict(img=results, img_path=None, img_shape=shape, ori_shape=shape)
        return super().transform(dict(img_path=results) if isinstance(results, str) else results)
