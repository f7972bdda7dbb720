"""ImageInferencer: what all Inferencers of this package share."""

from __future__ import annotations

import threading
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any

import cv2
import mmcv
import mmengine
import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.infer import BaseInferencer
from mmengine.registry import MODELS, VISUALIZERS, DefaultScope
from rich.console import Console
from rich.progress import track
from torch import nn

from kpu_mm.datasets.image_table import printable
from kpu_mm.models.encoder import ImageSizeError
from kpu_mm.utils.doctor import require_toolbox

from .read_images import MAX_PIXELS, NamedImage, is_video, list_inputs, read_images


class ImageInferencer(BaseInferencer):
    """From images to predictions and pictures, batch by batch.

    It is MMEngine's BaseInferencer with more kinds of input (see
    :mod:`kpu_mm.apis`). A batch holds images that have one size after the
    pipeline: nothing is padded, so a batch gives what its images give one by
    one. One call runs at a time, whichever thread it comes from.

    A subclass turns the model's result for one image into a prediction with
    :meth:`postprocess`, and into a picture with :meth:`visualize`.

    Args:
        cfg: A config with ``model`` and ``test_dataloader``, whose pipeline
            prepares images.
        device: Where to compute; None takes a GPU if there is one. Defaults
            to None.
        show_progress: Show a progress bar. Defaults to True.

    Raises:
        ImportError: If the config's toolbox is not installed.

    Attributes:
        visualizer_type: The toolbox's visualizer; '' for none.
        orientation: Whether images are turned, as :class:`EncodedImage` takes it.
        to_float32: Whether the pipeline gets float32 images, else uint8.
    """

    visualizer_type = ''
    orientation = 'exif'
    to_float32 = False

    def __init__(self, cfg: Config, device: str | None = None, show_progress: bool = True) -> None:
        # Classes and thresholds of a call are set on the model, so a call in
        # another thread has to wait.
        self._lock = threading.Lock()
        # Two Inferencers may be of different toolboxes.
        scope = cfg.get('default_scope')
        require_toolbox(scope, type(self).__name__)
        # MMPretrain's configs have it beside the model, and MMEngine's runner moves it.
        if 'data_preprocessor' in cfg:
            cfg.model.setdefault('data_preprocessor', cfg.data_preprocessor)
        with DefaultScope.overwrite_default_scope(scope):
            super().__init__(cfg, device=device, show_progress=show_progress)

    def __call__(
        self,
        inputs: Any,
        batch_size: int = 1,
        return_vis: bool = False,
        out_dir: str | Path = '',
        pred_out_dir: str | Path = '',
        return_datasamples: bool = False,
        max_pixels: int = MAX_PIXELS,
        video_stride: int = 1,
        **kwargs: Any,
    ) -> dict[str, list[Any]]:
        """Run on images.

        Args:
            inputs: An image, or many; see :mod:`kpu_mm.apis`.
            batch_size: Images in a batch. Defaults to 1.
            return_vis: Return pictures of the predictions. Defaults to
                False.
            out_dir: Folder for the pictures, ``vis/NAME.png``. Defaults to
                '', none.
            pred_out_dir: Folder for the predictions, ``NAME.json`` and
                ``NAME.npz`` for arrays. Defaults to '', none.
            return_datasamples: Return the model's results in place of the
                predictions. Defaults to False.
            max_pixels: Larger images are refused. Defaults to 50 million.
            video_stride: Every how many frames of a video one is taken.
                Defaults to 1.
            **kwargs: The arguments that the Inferencer's class lists.

        Returns:
            ``predictions`` and ``visualization``, one entry an image.

        Raises:
            FileNotFoundError: If an input is missing.
            ValueError: If an input is broken, too large or too long, or an
                argument is wrong.
        """
        # Each step gets its own arguments; unknown ones are an error.
        _, forward, visualize, postprocess = self._dispatch_kwargs(**kwargs)
        if min(batch_size, video_stride) < 1:
            raise ValueError(
                f'batch_size={batch_size} and video_stride={video_stride}: pass 1 or more.'
            )
        items = list_inputs(inputs)
        images: Any = read_images(items, self.orientation, max_pixels, video_stride)
        if self.show_progress:
            images = track(
                images,
                description='Inference',
                # The length of a video is known when all of it is read.
                total=None if any(map(is_video, items)) else len(items),
                # stdout is for the results of tools.
                console=Console(stderr=True),
            )
        predictions, pictures = [], []
        # An error must also stop the progress bar, which is a generator.
        with self._lock, torch.no_grad(), closing(images):
            for named, data in self.preprocess(images, batch_size):
                # All images of a batch have one size.
                with _naming(named[0], ImageSizeError):
                    results = self.forward(data, **forward)
                for image, result in zip(named, results, strict=True):
                    prediction = dict(
                        img_path=image.path, **self.postprocess(result, **postprocess)
                    )
                    if pred_out_dir:
                        write_prediction(prediction, Path(pred_out_dir), image.name)
                    predictions.append(result if return_datasamples else prediction)
                    if not (return_vis or out_dir):
                        continue
                    # BGR -> RGB; visualizers need contiguous memory.
                    rgb = np.ascontiguousarray(image.bgr[..., ::-1])
                    picture = self.visualize(rgb, result, **visualize)
                    if out_dir:
                        path = Path(out_dir, 'vis', f'{image.name}.png')
                        mmcv.imwrite(picture[..., ::-1], str(path))
                    if return_vis:
                        pictures.append(picture)
        return dict(predictions=predictions, visualization=pictures)

    def preprocess(
        self, inputs: Any, batch_size: int = 1
    ) -> Iterator[tuple[list[NamedImage], Any]]:
        """Prepare images, and batch those of one size in a row.

        Args:
            inputs: Named images.
            batch_size: Images in a batch. Defaults to 1.

        Yields:
            The images of a batch, and the batch.
        """
        # Lazy: only the images of one batch are in memory.
        prepared = ((image, self._run_pipeline(image)) for image in inputs)
        for _, alike in groupby(prepared, lambda p: p[1]['inputs'].shape):
            for chunk in self._get_chunk_data(alike, batch_size):
                named, data = zip(*chunk, strict=True)
                yield list(named), self.collate_fn(data)

    def _run_pipeline(self, image: NamedImage) -> Any:
        with _naming(image, ValueError, cv2.error):
            return self.pipeline(as_loaded(image, self.to_float32))

    @abstractmethod
    def visualize(self, rgb: np.ndarray, result: Any) -> np.ndarray:
        """Draw the result for one image, as RGB (H, W, 3) uint8.

        Args:
            rgb: The image, (H, W, 3) uint8.
            result: What the model returned for it.
        """

    @abstractmethod
    def postprocess(self, result: Any) -> dict[str, Any]:
        """Turn a result into a prediction, as :mod:`kpu_mm.apis` lists it.

        Args:
            result: What the model returned for one image.
        """

    def _init_model(self, cfg: Any, weights: str | None, device: str = 'cpu') -> nn.Module:
        # Zero-shot models load their own weights when they are built.
        model: nn.Module = MODELS.build(cfg.model)
        return model.to(device).eval()

    def _init_visualizer(self, cfg: Any) -> Any:
        # The config's may draw nothing, or write files.
        name = self.visualizer_type
        return VISUALIZERS.get(name)() if name else None

    def _init_collate(self, cfg: Any) -> Callable[..., Any]:
        return pseudo_collate

    def _init_pipeline(self, cfg: Any) -> Callable[..., Any]:
        steps = cfg.test_dataloader.dataset.pipeline
        loader, others = split_loading(steps)
        color = loader.get('color_type', 'color')
        if color not in ('color', 'color_ignore_orientation'):
            raise ValueError(
                f'color_type={color!r} of LoadImageFromFile: Inferencers read images in colour '
                "alone; run tools/test.py, or write 'color'."
            )
        ignored = color != 'color' or loader.get('ignore_orientation', False)
        self.orientation = loader.get('orientation', 'ignore' if ignored else 'exif')
        self.to_float32 = loader.get('to_float32', False)
        return Compose(others)


@contextmanager
def _naming(image: NamedImage, *kinds: type[Exception]) -> Iterator[None]:
    """Name the image that is too small, or too long, for a transform or the model."""
    try:
        yield
    except kinds as error:
        height, width = image.bgr.shape[:2]
        reason = ' '.join(str(error).split()).rstrip('.')
        raise ValueError(
            f"'{printable(image.path)}' is {width} x {height} pixels, which cannot be used "
            f'({reason}); pad it, or cut it into parts.'
        ) from error


def split_loading(
    steps: Sequence[Mapping[str, Any]],
) -> tuple[Mapping[str, Any], list[Mapping[str, Any]]]:
    """Separate the transforms that load images and labels from the others.

    Args:
        steps: Configs of a pipeline's transforms.

    Returns:
        The pipeline's ``LoadImageFromFile``, empty if it has none, and the
        transforms that load nothing.
    """
    loader: Mapping[str, Any] = {}
    others = []
    for step in steps:
        name = str(step['type']).rpartition('.')[2]
        if not name.startswith('Load'):
            others.append(step)
        elif name == 'LoadImageFromFile':
            loader = step
    return loader, others


def as_loaded(image: NamedImage, to_float32: bool = False) -> dict[str, Any]:
    """Return what LoadImageFromFile would add for an image.

    Args:
        image: The image.
        to_float32: As of LoadImageFromFile. Defaults to False.
    """
    shape = image.bgr.shape[:2]
    return dict(
        img=image.bgr.astype(np.float32) if to_float32 else image.bgr,
        img_path=image.path,
        img_shape=shape,
        ori_shape=shape,
        # MMDetection's PackDetInputs needs one.
        img_id=0,
    )


def write_prediction(prediction: dict[str, Any], folder: Path, name: str) -> None:
    """Write a prediction as JSON, with its arrays in an .npz file.

    Args:
        prediction: The prediction; the JSON's ``arrays`` names the file of
            its arrays, where those in lists are numbered.
        folder: Where to write.
        name: Name of the files, without extension.
    """
    folder.mkdir(parents=True, exist_ok=True)
    arrays, rest = split_arrays(prediction)
    if arrays:
        np.savez_compressed(folder / f'{name}.npz', **arrays)
        rest['arrays'] = f'{name}.npz'
    mmengine.dump(rest, folder / f'{name}.json')


def split_arrays(prediction: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Separate arrays from values of JSON.

    Args:
        prediction: The prediction.

    Returns:
        Arrays by name, those in lists numbered; and the rest.
    """
    arrays: dict[str, Any] = {}
    rest: dict[str, Any] = {}
    for key, value in prediction.items():
        parts = {key: value}
        if isinstance(value, list):
            parts = {f'{key}_{i}': part for i, part in enumerate(value)}
        if any(isinstance(part, np.ndarray) for part in parts.values()):
            arrays |= parts
        else:
            rest[key] = value
    return arrays, rest
