"""Hooks."""

from .feature_pca_hook import FeaturePCAHook
from .joint_checkpoint_hook import JointCheckpointHook
from .non_finite_hook import NonFiniteHook
from .skipped_images_hook import SkippedImagesHook

__all__ = [
    'FeaturePCAHook',
    'JointCheckpointHook',
    'NonFiniteHook',
    'SkippedImagesHook',
]
