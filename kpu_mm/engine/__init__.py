"""What drives training: runners, loops, hooks, optimisers, wrappers."""

from .check_hooks import BackboneCheckHook, ClassCountHook
from .checkpoint_hooks import (
    AtomicCheckpointHook,
    JointCheckpointHook,
    split_checkpoint,
    tasks_in,
)
from .distill_hooks import FeaturePCAHook, NormalizerFitHook, SecondLossHook
from .model_wrappers import KPUDistributedDataParallel, Unwrapped
from .optimizers import (
    AutocastOptimWrapper,
    LayerDecayConstructor,
    TrainableConstructor,
)
from .runner import KPUFlexibleRunner, KPURunner
from .step_hooks import ModuleClipHook, NonFiniteHook, SkippedImagesHook
from .test_loops import MultiTaskTestLoop, MultiTaskValLoop
from .train_loops import MultiStreamTrainLoop, ResumableTrainLoop

__all__ = [
    'AtomicCheckpointHook',
    'AutocastOptimWrapper',
    'BackboneCheckHook',
    'ClassCountHook',
    'FeaturePCAHook',
    'JointCheckpointHook',
    'KPUDistributedDataParallel',
    'KPUFlexibleRunner',
    'KPURunner',
    'LayerDecayConstructor',
    'ModuleClipHook',
    'MultiStreamTrainLoop',
    'MultiTaskTestLoop',
    'MultiTaskValLoop',
    'NonFiniteHook',
    'NormalizerFitHook',
    'ResumableTrainLoop',
    'SecondLossHook',
    'SkippedImagesHook',
    'TrainableConstructor',
    'Unwrapped',
    'split_checkpoint',
    'tasks_in',
]
