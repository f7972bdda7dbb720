"""From a distillation config to the caches of its teachers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from kpu_mm.datasets import UnlabeledImages
from kpu_mm.datasets.build_dataset import build_dataset
from kpu_mm.datasets.feature_cache import read_record, refuse_other
from kpu_mm.datasets.feature_cache.estimate import (
    bytes_per_image,
    check_images_alone,
)
from kpu_mm.datasets.feature_cache.plan import CachePlan
from kpu_mm.models.bare_config import bare_config
from kpu_mm.models.teachers import (
    CachedTeacher,
    describe_teacher,
    each_alone,
)
from kpu_mm.models.teachers.teacher_bank import build_teacher
from kpu_mm.structures import Features
from kpu_mm.utils.versions import installed
from kpu_mm.version import __version__

# recorded for the reader, not compared
_LIBRARIES = (
    'torch',
    'torchvision',
    'transformers',
    'open_clip_torch',
    'timm',
    'opencv-python-headless',
    'pillow',
)


class CacheOptions(NamedTuple):
    """How features are computed and stored.

    Args:
        views: Views of each image; None for those of the stream's dataset,
            or one. Defaults to None.
        dtype: 'float16' or 'bfloat16'. Defaults to 'float16'.
        autocast: Run teachers in bfloat16 autocast. Defaults to False.
        batch_size: Images that a teacher sees together. Defaults to 32.
        chunk_bytes: About the size of a file. Defaults to 64 MB.
    """

    views: int | None = None
    dtype: str = 'float16'
    autocast: bool = False
    batch_size: int = 32
    chunk_bytes: float = 64e6


class PreparedCache(NamedTuple):
    """All that writing a cache takes.

    Args:
        plan: What goes where.
        extract: The teacher: images (3, h, w) to features, image by image.
        image_bytes: Size of one view of an image.
    """

    plan: CachePlan
    extract: Callable[[Sequence[Tensor]], list[Features]]
    image_bytes: float

    @property
    def total_bytes(self) -> float:
        """Size of the whole cache."""
        count = len(self.plan.images) * self.plan.record['views']
        return self.image_bytes * count

    @property
    def missing_bytes(self) -> float:
        """Size of what is to be written."""
        share = len(self.plan.missing()) / len(self.plan.chunks)
        return self.total_bytes * share


def prepare_cache(
    cfg: Mapping[str, Any],
    name: str,
    folder: Path,
    device: torch.device,
    options: CacheOptions,
) -> PreparedCache:
    """Build a teacher and plan its cache; nothing is written.

    Args:
        cfg: Config of a distillation run.
        name: The teacher.
        folder: The cache, perhaps of an earlier run.
        device: Where the teacher computes.
        options: How features are computed and stored.

    Raises:
        ValueError: If the cache is of something else, or what the teacher
            says cannot be stored.
    """
    images = open_images(cfg, name, options.views)
    config = bare_config(cfg['model']['teachers'][name])
    teacher = build_teacher(name, config)
    if isinstance(teacher, CachedTeacher):
        raise ValueError(
            f"the config reads teacher '{name}' from '{teacher.cache}' and "
            'does not say whose features these are; use the config without '
            'caches.'
        )
    teacher.to(device)

    def extract(images: Sequence[Tensor]) -> list[Features]:
        on_device = [image.to(device) for image in images]
        amp = options.autocast
        with torch.autocast(device.type, torch.bfloat16, enabled=amp):
            return each_alone(teacher, on_device)

    check_images_alone(images, extract)
    size = bytes_per_image(images, extract, getattr(torch, options.dtype))
    there = read_record(folder)
    fixed = dict(
        teacher=describe_teacher(config, teacher, there and there['teacher']),
        **images.describe(),
        dtype=options.dtype,
        autocast=options.autocast,
    )
    per_chunk = max(1, int(options.chunk_bytes / size))
    views = images.views or 1
    if there is not None:
        refuse_other(folder, there, fixed)
        per_chunk = there['images_per_chunk']
        views = max(views, there['views'])
    record = dict(
        **fixed, images_per_chunk=per_chunk, views=views, versions=_versions()
    )
    plan = CachePlan(folder, record, images, options.batch_size)
    return PreparedCache(plan, extract, size)


def open_images(
    cfg: Mapping[str, Any], name: str, views: int | None = None
) -> UnlabeledImages:
    """Open the images of a teacher's stream, without caches.

    Args:
        cfg: Config of a distillation run.
        name: The teacher.
        views: How many views of an image there are. Defaults to None, as
            the stream's dataset says, or one.

    Raises:
        ValueError: If there is no such stream, or several.
    """
    stream = (cfg['model'].get('streams') or {}).get(name, name)
    if not isinstance(stream, str):
        raise ValueError(
            f"teacher '{name}' sees the streams {list(stream)}, but a cache "
            'is of one; leave this teacher out.'
        )
    if stream not in cfg['train_dataloader']:
        raise ValueError(
            f"train_dataloader has no stream '{stream}' for teacher '{name}'."
        )
    config = dict(cfg['train_dataloader'][stream]['dataset'])
    config.pop('features', None)
    config['views'] = views or config.get('views') or 1
    images = build_dataset(config)
    if not isinstance(images, UnlabeledImages):
        raise ValueError(
            f"the stream '{stream}' is of {type(images).__name__}; only those "
            'of kpu_mm.UnlabeledImages have views to store.'
        )
    return images


def _versions() -> dict[str, str]:
    found = (installed((library,)) for library in _LIBRARIES)
    return dict(kpu_mm=__version__, **dict(filter(None, found)))
