"""Unlabelled images in an endless order, and batches of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypedDict

import torch
from mmengine.dataset import Compose
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from kpu_mm.registry import DATASETS, FUNCTIONS, TRANSFORMS

from .aspect_groups import AspectGroups, aspect_ratio
from .encoded_image import CorruptImageError
from .image_order import SourceMix, seeded, stable_hash
from .image_sources import ImageSource

Skipped = Sequence[tuple[str, str]]


@DATASETS.register_module()
class UnlabeledImages(Dataset):
    """Images of one or several sources, shuffled, without end.

    ``dataset[position]`` is a pure function of the seed and the position,
    random transforms included, so that a stream resumes exactly by resuming
    its position. An image that cannot be read or decoded is replaced by
    another one and listed in ``results['skipped']`` as (name, reason).

    Args:
        sources: One source config or several, for example
            ``dict(type='kpu_mm.FolderSource', root='data/images')``.
        pipeline: Transforms; the first finds the encoded image in
            ``results['bytes']``.
        weights: Share of each source. Defaults to None, the number of its
            images.
        seed: Chooses order and transforms. Defaults to 0; the train loop
            sets it.
        max_retries: So many images in a row may be replaced. Defaults to
            20.
        group_size: So many images in a row have similar aspect ratios, so
            that batches of whole images have little padding: the batch size
            of a process, or a multiple of it. Defaults to 1, the order takes
            no notice of shapes.

    Raises:
        ValueError: If there is no source, a source has no images, a group has
            none, or none of some images of a source can be read.
    """

    def __init__(
        self,
        sources: dict[str, Any] | Sequence[dict[str, Any]],
        pipeline: Sequence[dict[str, Any] | Callable],
        weights: Sequence[float] | None = None,
        seed: int = 0,
        max_retries: int = 20,
        group_size: int = 1,
    ) -> None:
        configs = [sources] if isinstance(sources, dict) else list(sources)
        if not configs:
            raise ValueError('`sources` is empty; name at least one image source.')
        self.sources: list[ImageSource] = [DATASETS.build(config) for config in configs]
        for source, given in zip(self.sources, configs, strict=True):
            _check_images(source, given, max_retries + 1)
        self._mix = SourceMix([len(source) for source in self.sources], weights)
        # Compose of mmengine would build names with its own registry.
        self.pipeline = Compose(
            [TRANSFORMS.build(t) if isinstance(t, dict) else t for t in pipeline]
        )
        self.seed = seed
        self.max_retries = max_retries
        self.group_size = group_size
        self._groups = AspectGroups(group_size, len(self), self.aspect_at)

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._mix)

    def set_seed(self, seed: int) -> None:
        """Choose another order and other random transforms."""
        self.seed = seed

    def __getitem__(self, position: int) -> Any:
        """Load the image at a position of the endless stream.

        Args:
            position: Any number from 0.
        """
        return self.load(position, self._groups.locate(position, self.seed), self.pipeline)

    def load(self, position: int, place: int, pipeline: Callable[[dict], Any]) -> Any:
        """Load an image, or another one if it cannot be used.

        Args:
            position: Seeds the transforms and the choice of another image.
            place: Which image, by its place in the order without groups.
            pipeline: The transforms.

        Raises:
            RuntimeError: If too many images in a row cannot be used.
        """
        skipped: list[tuple[str, str]] = []
        for attempt in range(self.max_retries + 1):
            if attempt:
                # far from positions in use, so that a substitute is rarely seen twice
                place = stable_hash(self.seed, position, attempt) % (1 << 40)
            number, index = self._mix.locate(place, self.seed)
            try:
                return self._load(number, index, position, skipped, pipeline)
            except CorruptImageError as error:
                name = self.sources[number].name(index)
                skipped.append((name, error.reason))
        name, reason = skipped[-1]
        raise RuntimeError(
            f'{len(skipped)} images in a row cannot be used, the last is '
            f"'{name}' ({reason}); check that the data are complete."
        )

    def aspect_at(self, place: int) -> float:
        """Height over width of an image, by its header.

        Args:
            place: Its place in the order without groups.
        """
        number, index = self._mix.locate(place, self.seed)
        return aspect_ratio(self.sources[number], index)

    def _load(
        self,
        number: int,
        index: int,
        position: int,
        skipped: Skipped,
        pipeline: Callable[[dict], Any],
    ) -> Any:
        """Run the pipeline with generators seeded by the position."""
        data = self.sources[number].read(index)
        results = {'bytes': data, 'skipped': list(skipped)}
        with seeded(stable_hash(self.seed, position)):
            output = pipeline(results)
        if output is None:
            raise ValueError(
                'A transform of the pipeline returned None; transforms that '
                'filter images have no place in a stream without labels.'
            )
        return output


def _check_images(source: ImageSource, config: Mapping[str, Any], tries: int) -> None:
    """Raise if none of some images can be read: a wrong root, column or kind of list."""
    if not len(source):
        return
    faults = []
    for index in sorted({i * len(source) // tries for i in range(tries)}):
        try:
            source.read(index)
            return
        except CorruptImageError as error:
            faults.append(error)
    raise ValueError(
        f'{len(faults)} of the {len(source)} images of {dict(config)} were tried and none can be '
        f"read, the first is '{faults[0].name}' ({faults[0].reason}); correct the source."
    )


@DATASETS.register_module()
class MixedResolution(Dataset):
    """A stream of several sizes, one in each iteration.

    Stochastic resolutions of C-RADIOv4 (https://arxiv.org/abs/2601.17237):
    a student that meets every teacher at many sizes cannot tell teachers
    apart by them. The size is a pure function of seed and iteration, the
    same in all processes, so that a stream resumes exactly.

    Args:
        dataset: Config of :class:`UnlabeledImages`; the first transform of
            its pipeline is one that takes ``size``, such as
            ``kpu_mm.DecodeRandomResizedCrop``.
        sizes: What ``size`` may be, each as often as the others.
        batch_size: Images of an iteration in all processes. Defaults to 1;
            the stream's loader sets it.

    Raises:
        ValueError: If there is no size, or the first transform takes none.
    """

    def __init__(
        self, dataset: Mapping[str, Any], sizes: Sequence[int], batch_size: int = 1
    ) -> None:
        first, *rest = dataset['pipeline']
        if not sizes or not isinstance(first, Mapping) or 'size' not in first:
            raise ValueError(
                f'MixedResolution: sizes={list(sizes)} are for `size` of the first transform of '
                f'the pipeline, which is {first}; give one size at least and a transform that '
                'has it.'
            )
        self.sizes = tuple(sizes)
        self.batch_size = batch_size
        # lists of images are files in memory, which all of these share
        self.datasets: list[Any] = [
            DATASETS.build(dict(dataset, pipeline=[dict(first, size=size), *rest]))
            for size in self.sizes
        ]

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.datasets[0])

    def set_seed(self, seed: int) -> None:
        """Choose other sizes, another order and other random transforms."""
        for dataset in self.datasets:
            dataset.set_seed(seed)

    def set_batch_size(self, batch_size: int) -> None:
        """Say how many images in a row have one size.

        Args:
            batch_size: Images of an iteration in all processes.
        """
        self.batch_size = batch_size

    def size_at(self, position: int) -> int:
        """Choose the size of the image at a position.

        Args:
            position: Any number from 0.
        """
        return self.sizes[self._choose(position)]

    def __getitem__(self, position: int) -> Any:
        """Load the image at a position of the endless stream.

        Args:
            position: Any number from 0.
        """
        return self.datasets[self._choose(position)][position]

    def _choose(self, position: int) -> int:
        # The same for all images of an iteration, in all processes.
        iteration = position // self.batch_size
        seed = self.datasets[0].seed
        return stable_hash(seed, 'size', iteration) % len(self.sizes)


class ImageBatch(TypedDict):
    """A batch of raw images.

    Keys:
        images: RGB in [0, 255], (B, 3, H, W) uint8.
        mask: True on real pixels, (B, H, W) bool; None if there is no
            padding.
        skipped: (name, reason) of every image that could not be used.
    """

    images: Tensor
    mask: Tensor | None
    skipped: list[tuple[str, str]]


@FUNCTIONS.register_module()
def stack_images(samples: Sequence[dict | list[dict]]) -> ImageBatch:
    """Stack images; smaller ones are padded with zeros, bottom and right.

    Args:
        samples: Each with ``image``, (3, h, w) uint8, and ``skipped``; or
            lists of these.

    Returns:
        The batch, as large as the largest height and width.
    """
    packs = [sample if isinstance(sample, list) else [sample] for sample in samples]
    single = [sample for pack in packs for sample in pack]
    images = [sample['image'] for sample in single]
    skipped = [entry for sample in single for entry in sample['skipped']]
    height = max(image.shape[1] for image in images)
    width = max(image.shape[2] for image in images)
    batch = _new_batch(images[0], (len(images), 3, height, width))
    mask = None
    if all(image.shape[1:] == (height, width) for image in images):
        torch.stack(images, out=batch)
    else:
        # Padding is zero, and the mask False there.
        batch.zero_()
        mask = torch.zeros(len(images), height, width, dtype=torch.bool)
        for i, image in enumerate(images):
            _, h, w = image.shape
            batch[i, :, :h, :w] = image
            mask[i, :h, :w] = True
    return ImageBatch(images=batch, mask=mask, skipped=skipped)


def _new_batch(like: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Allocate a batch, in a worker right where the parent reads it."""
    if get_worker_info() is None:
        return like.new_empty(shape)
    size = torch.Size(shape).numel() * like.element_size()
    # Shared memory at once: a plain tensor would be copied into it later.
    storage = torch.UntypedStorage._new_shared(size, device='cpu')
    return torch.empty(0, dtype=like.dtype).set_(storage).view(shape)
