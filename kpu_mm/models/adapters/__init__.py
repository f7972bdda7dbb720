"""Parts of ViT-Adapter (https://arxiv.org/abs/2205.08534)."""

from .extractor import Extractor
from .init_adapter import init_adapter
from .injector import Injector
from .interaction_block import Geometry, InteractionBlock, split_layers
from .level_geometry import flatten_levels, reference_points, split_levels
from .merge_levels import merge_levels
from .spatial_prior import SpatialPrior

__all__ = [
    'Extractor',
    'Geometry',
    'Injector',
    'InteractionBlock',
    'SpatialPrior',
    'flatten_levels',
    'init_adapter',
    'merge_levels',
    'reference_points',
    'split_layers',
    'split_levels',
]
