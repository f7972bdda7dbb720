"""Images: sources, transforms and resumable streams."""

from .collate import ImageBatch, stack_images
from .endless_dataset import EndlessDataset
from .errors import CorruptImageError
from .mix import SourceMix
from .mixed_resolution import MixedResolution
from .multi_stream_loader import MultiStreamLoader, StreamsBatch
from .permutation import Permutation
from .position_sampler import PositionSampler
from .sources import (
    FolderSource,
    ImageSource,
    ListSource,
    ParquetSource,
    TarSource,
)
from .stream_loader import StreamLoader, build_stream
from .transforms import (
    DecodeRandomResizedCrop,
    DecodeResize,
    PackImage,
    TorchvisionTransform,
)
from .unlabeled_dataset import UnlabeledImages

__all__ = [
    'CorruptImageError',
    'DecodeRandomResizedCrop',
    'DecodeResize',
    'EndlessDataset',
    'FolderSource',
    'ImageBatch',
    'ImageSource',
    'ListSource',
    'MixedResolution',
    'MultiStreamLoader',
    'PackImage',
    'ParquetSource',
    'Permutation',
    'PositionSampler',
    'SourceMix',
    'StreamLoader',
    'StreamsBatch',
    'TarSource',
    'TorchvisionTransform',
    'UnlabeledImages',
    'build_stream',
    'stack_images',
]
