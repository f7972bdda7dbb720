"""Unlabelled images: sources, transforms and resumable streams."""

from .collate import ImageBatch, stack_images
from .errors import CorruptImageError
from .mix import SourceMix
from .multi_stream_loader import MultiStreamLoader, StreamsBatch, build_stream
from .permutation import Permutation
from .position_sampler import PositionSampler
from .sources import (
    DigitSceneSource,
    FolderSource,
    ImageSource,
    ListSource,
    LmdbSource,
    ParquetSource,
    TarSource,
)
from .transforms import DecodeRandomResizedCrop, DecodeResize, PackImage
from .unlabeled_dataset import UnlabeledImages

__all__ = [
    'CorruptImageError',
    'DecodeRandomResizedCrop',
    'DecodeResize',
    'DigitSceneSource',
    'FolderSource',
    'ImageBatch',
    'ImageSource',
    'ListSource',
    'LmdbSource',
    'MultiStreamLoader',
    'PackImage',
    'ParquetSource',
    'Permutation',
    'PositionSampler',
    'SourceMix',
    'StreamsBatch',
    'TarSource',
    'UnlabeledImages',
    'build_stream',
    'stack_images',
]
