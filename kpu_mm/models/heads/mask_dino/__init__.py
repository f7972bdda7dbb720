"""Mask DINO (https://arxiv.org/abs/2206.02777)."""

from .classes import FocalClasses, SoftmaxClasses
from .criterion import Criterion
from .denoising import Denoising, Noise
from .learned_queries import LearnedQueries
from .mask_dino_head import MaskDINOHead
from .matcher import HungarianMatcher, TermWeights
from .pixel_decoder import MaskDINOPixelDecoder
from .postprocessor import Postprocessor, Results
from .predictor import Predictor
from .query_decoder import QueryDecoder
from .selected_queries import SelectedQueries
from .structures import (
    DenoisingQueries,
    HeadOutputs,
    Pairs,
    PixelFeatures,
    Predictions,
    Queries,
    Target,
)

__all__ = [
    'Criterion',
    'Denoising',
    'DenoisingQueries',
    'FocalClasses',
    'HeadOutputs',
    'HungarianMatcher',
    'LearnedQueries',
    'MaskDINOHead',
    'MaskDINOPixelDecoder',
    'Noise',
    'Pairs',
    'PixelFeatures',
    'Postprocessor',
    'Predictions',
    'Predictor',
    'Queries',
    'QueryDecoder',
    'Results',
    'SelectedQueries',
    'SoftmaxClasses',
    'Target',
    'TermWeights',
]
