"""ImageInferencer: what all Inferencers of this package share."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from itertools import groupby
from pathlib import Path
from typing import Any

import mmcv
import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.infer import BaseInferencer
from mmengine.registry import MODELS, VISUALIZERS, DefaultScope
from rich.console import Console
from rich.progress import track
from torch import nn

from .decode_image import MAX_PIXELS
from .inputs import count_images, list_inputs
from .pipeline import as_loaded, load_backend, without_loading
from .read_images import ImageReader, NamedImage
from .write_prediction import write_prediction

Batch = tuple[list[NamedImage], Any]


class ImageInferencer(BaseInferencer):
    """From images to predictions and pictures, batch by batch.

    It is MMEngine's BaseInferencer with more kinds of input (see
    :mod:`kpu_mm.apis`), whose batches hold images that have one size after
    the pipeline: nothing is padded, so a batch gives what its images give
    one by one. One call runs at a time, whichever thread it comes from.

    Args:
        cfg: A config with ``model`` and ``test_dataloader``, whose pipeline
            prepares images.
        device: Where to compute; None takes a GPU if there is one. Defaults
            to None.
        show_progress: Show a progress bar. Defaults to True.

    Attributes:
        visualizer_type: The toolbox's visualizer; '' for none.
    """

    visualizer_type = ''

    def __init__(
        self,
        cfg: Config,
        device: str | None = None,
        show_progress: bool = True,
    ) -> None:
        self._one_call = threading.Lock()
        self.load_backend = 'cv2'
        scope = cfg.get('default_scope')
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
            out_dir: Folder that gets the pictures, as ``vis/NAME.png``.
                Defaults to '', none.
            pred_out_dir: Folder that gets the predictions, as
                ``NAME.json`` and files beside it for arrays. Defaults to
                '', none.
            return_datasamples: Return what the model gave in place of the
                predictions. Defaults to False.
            max_pixels: Larger images are refused. Defaults to 50 million.
            video_stride: Every how many frames of a video one is taken.
                Defaults to 1.
            **kwargs: What the Inferencer's own description names.

        Returns:
            ``predictions`` and ``visualization``, one entry an image.

        Raises:
            FileNotFoundError: If an input is missing.
            ValueError: If an input is broken or too large, or an argument
                is wrong.
        """
        _, forward, draw, tell = self._dispatch_kwargs(**kwargs)
        if batch_size < 1:
            raise ValueError(f'batch_size={batch_size}: pass 1 or more.')
        items = list_inputs(inputs)
        reader = ImageReader(self.load_backend, max_pixels, video_stride)
        images: Any = reader.read(items)
        if self.show_progress:
            images = track(
                images,
                description='Inference',
                total=count_images(items, video_stride),
                console=Console(stderr=True),
            )
        results: dict[str, list[Any]] = dict(predictions=[], visualization=[])
        with self._one_call, torch.no_grad(), closing(images):
            for named, data in self.preprocess(images, batch_size):
                found = self.forward(data, **forward)
                pictures = self.visualize(
                    named, found, return_vis=return_vis, out_dir=out_dir,
                    **draw,
                )  # fmt: skip
                told = self.postprocess(
                    found, pictures, return_datasamples, named=named,
                    pred_out_dir=pred_out_dir, **tell,
                )  # fmt: skip
                results['predictions'] += told['predictions']
                results['visualization'] += pictures if return_vis else []
        return results

    def preprocess(self, inputs: Any, batch_size: int = 1) -> Iterator[Batch]:
        """Prepare images and put those of one size in a row into batches.

        Args:
            inputs: Named images.
            batch_size: Images in a batch. Defaults to 1.

        Yields:
            The images of a batch, and the batch.
        """
        prepared = (
            (image, self.pipeline(as_loaded(image))) for image in inputs
        )
        for _, alike in groupby(prepared, lambda p: p[1]['inputs'].shape):
            for chunk in self._get_chunk_data(alike, batch_size):
                named, data = zip(*chunk, strict=True)
                yield list(named), self.collate_fn(data)

    def visualize(
        self,
        inputs: list[NamedImage],
        preds: Any,
        return_vis: bool = False,
        out_dir: str | Path = '',
        **kwargs: Any,
    ) -> list[np.ndarray]:
        """Draw predictions, if anybody wants that.

        Args:
            inputs: The images.
            preds: What :meth:`forward` gave.
            return_vis: Whether pictures are returned. Defaults to False.
            out_dir: Folder that gets them. Defaults to '', none.
            **kwargs: For :meth:`draw`.

        Returns:
            RGB pictures, (H, W, 3) uint8; none if nobody wants them.
        """
        if not (return_vis or out_dir):
            return []
        pictures = []
        for image, found in zip(inputs, preds, strict=True):
            rgb = np.ascontiguousarray(image.bgr[..., ::-1])
            pictures.append(self.draw(rgb, found, **kwargs))
            if out_dir:
                path = Path(out_dir, 'vis', f'{image.name}.png')
                mmcv.imwrite(pictures[-1][..., ::-1], str(path))
        return pictures

    def postprocess(
        self,
        preds: Any,
        visualization: list[np.ndarray],
        return_datasamples: bool = False,
        named: Sequence[NamedImage] = (),
        pred_out_dir: str | Path = '',
        **kwargs: Any,
    ) -> dict[str, list[Any]]:
        """Say what was found, and write it down.

        Args:
            preds: What :meth:`forward` gave.
            visualization: What :meth:`visualize` gave.
            return_datasamples: Leave the predictions as they are. Defaults
                to False.
            named: The images. Defaults to ().
            pred_out_dir: Folder for files. Defaults to '', none.
            **kwargs: For :meth:`describe`.

        Returns:
            ``predictions`` and ``visualization``.
        """
        told = []
        for image, found in zip(named, preds, strict=True):
            result = dict(
                img_path=image.path, **self.describe(found, **kwargs)
            )
            if pred_out_dir:
                write_prediction(result, Path(pred_out_dir), image.name)
            told.append(found if return_datasamples else result)
        return dict(predictions=told, visualization=visualization)

    def draw(self, rgb: np.ndarray, found: Any) -> np.ndarray:
        """Draw what was found, as RGB (H, W, 3) uint8.

        Args:
            rgb: The image, (H, W, 3) uint8.
            found: What the model gave.
        """
        raise NotImplementedError

    def describe(self, found: Any) -> dict[str, Any]:
        """Say what was found, as :mod:`kpu_mm.apis` lists it.

        Args:
            found: What the model gave.
        """
        raise NotImplementedError

    def _init_model(
        self, cfg: Any, weights: str | None, device: str = 'cpu'
    ) -> nn.Module:
        model: nn.Module = MODELS.build(cfg.model)
        return model.to(device).eval()

    def _init_visualizer(self, cfg: Any) -> Any:
        # not the config's, which may draw nothing or write files
        if not self.visualizer_type:
            return None
        return VISUALIZERS.get(self.visualizer_type)()

    def _init_collate(self, cfg: Any) -> Callable[..., Any]:
        return pseudo_collate

    def _init_pipeline(self, cfg: Any) -> Callable[..., Any]:
        steps = cfg.test_dataloader.dataset.pipeline
        self.load_backend = load_backend(steps)
        return Compose(without_loading(steps))
