"""Hooks."""

from .atomic_checkpoint_hook import AtomicCheckpointHook
from .backbone_fit_hook import BackboneFitHook
from .class_count_hook import ClassCountHook
from .feature_pca_hook import FeaturePCAHook
from .joint_checkpoint_hook import JointCheckpointHook
from .module_clip_hook import ModuleClipHook
from .non_finite_hook import NonFiniteHook
from .normalizer_fit_hook import NormalizerFitHook
from .second_loss_hook import SecondLossHook
from .skipped_images_hook import SkippedImagesHook

__all__ = [
    'AtomicCheckpointHook',
    'BackboneFitHook',
    'ClassCountHook',
    'FeaturePCAHook',
    'JointCheckpointHook',
    'ModuleClipHook',
    'NonFiniteHook',
    'NormalizerFitHook',
    'SecondLossHook',
    'SkippedImagesHook',
]
