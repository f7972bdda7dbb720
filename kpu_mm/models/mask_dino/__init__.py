"""Mask DINO (https://arxiv.org/abs/2206.02777).

Docstrings use these letters: B images; N queries; K class outputs; C
channels; (H, W) the canvas, which is the padded size of the batch; (h, w) its
grid at stride 4; S cells over all levels; M objects of an image.
"""

from .mask_dino_head import MaskDINO, MaskDINOHead
from .pixel_decoder import MaskDINOPixelDecoder
from .predictor import FocalClasses, SoftmaxClasses
from .query_decoder import LearnedQueries, SelectedQueries
