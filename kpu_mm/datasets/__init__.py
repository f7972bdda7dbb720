"""Images: sources, transforms and resumable streams."""

from .encoded_image import CorruptImageError, CropBox, DataError, EncodedImage
from .endless_dataset import EndlessDataset, build_dataset
from .hf_source import HFSource
from .image_order import Permutation, SourceMix, seeded, stable_hash
from .image_sources import FolderSource, ImageSource, ListSource
from .image_transforms import DecodeRandomResizedCrop, DecodeResize, PackImage, TorchvisionTransform
from .label_maps import CheckLabelMap, check_label_maps
from .load_image import LoadImageFromFile
from .stream_loader import (
    MultiStreamLoader,
    PositionSampler,
    StreamLoader,
    StreamsBatch,
    build_stream,
)
from .tar_source import TarSource
from .token_packs import TokenPacks
from .unlabeled_images import ImageBatch, MixedResolution, UnlabeledImages, stack_images
