"""What drives training: runner, loop, hooks, optimiser, data parallelism."""

from .data_parallel import KPUDistributedDataParallel
from .hooks import (
    AtomicCheckpointHook,
    BackboneFitHook,
    ClassCountHook,
    FeaturePCAHook,
    JointCheckpointHook,
    ModuleClipHook,
    NonFiniteHook,
    NormalizerFitHook,
    SecondLossHook,
    SkippedImagesHook,
)
from .knn_test_loop import KNNTestLoop
from .kpu_runner import KPUFlexibleRunner, KPURunner
from .multi_stream_train_loop import MultiStreamTrainLoop
from .multi_task_test_loop import MultiTaskTestLoop
from .multi_task_val_loop import MultiTaskValLoop
from .optimizers import (
    AutocastOptimWrapper,
    LayerDecayConstructor,
    TrainableConstructor,
)
from .resumable_train_loop import ResumableTrainLoop
from .split_checkpoint import split_checkpoint, tasks_in
from .unwrapped import Unwrapped

__all__ = [
    'AtomicCheckpointHook',
    'AutocastOptimWrapper',
    'BackboneFitHook',
    'ClassCountHook',
    'FeaturePCAHook',
    'JointCheckpointHook',
    'KNNTestLoop',
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
