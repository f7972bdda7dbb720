"""Mask DINO transcribed into plain PyTorch, slowly and without the package.

Modules carry the names of the official checkpoints.
"""

from torch import nn

from .pixel_decoder import PixelDecoder
from .predictor import Predictor


class MaskDINOReference(nn.Module):
    """The head: pixel decoder and predictor."""

    def __init__(self, pixel_decoder, predictor):
        super().__init__()
        self.pixel_decoder = PixelDecoder(**pixel_decoder)
        self.predictor = Predictor(**predictor)

    def forward(self, features, denoising=None):
        mask_features, memories = self.pixel_decoder(features)
        return self.predictor(memories, mask_features, denoising)
