"""What drives training: runner, loop, hooks, optimiser, data parallelism."""

from .data_parallel import KPUDistributedDataParallel
from .hooks import FeaturePCAHook, NonFiniteHook, SkippedImagesHook
from .kpu_runner import KPUFlexibleRunner, KPURunner
from .multi_stream_train_loop import MultiStreamTrainLoop
from .optimizers import AutocastOptimWrapper, TrainableConstructor
from .resumable_train_loop import ResumableTrainLoop

__all__ = [
    'AutocastOptimWrapper',
    'FeaturePCAHook',
    'KPUDistributedDataParallel',
    'KPUFlexibleRunner',
    'KPURunner',
    'MultiStreamTrainLoop',
    'NonFiniteHook',
    'ResumableTrainLoop',
    'SkippedImagesHook',
    'TrainableConstructor',
]
