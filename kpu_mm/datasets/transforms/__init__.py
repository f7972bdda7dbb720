"""Decoding, cropping and packing of images."""

from .decode_random_resized_crop import DecodeRandomResizedCrop
from .decode_resize import DecodeResize, shortest_edge_size
from .encoded_image import CropBox, EncodedImage
from .pack_image import PackImage
from .torchvision_transform import TorchvisionTransform

__all__ = [
    'CropBox',
    'DecodeRandomResizedCrop',
    'DecodeResize',
    'EncodedImage',
    'PackImage',
    'TorchvisionTransform',
    'shortest_edge_size',
]
