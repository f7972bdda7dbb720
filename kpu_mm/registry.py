"""Child registries of MMEngine's roots.

A name registered here answers to ``type='kpu_mm.Name'`` from any OpenMMLab
config. Keep this file free of heavy imports: ``locations`` are imported on
the first look-up.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any

import mmengine.registry as mmengine
from mmengine.registry import Registry

# Modules of kpu_mm.models that register models. They are listed here, not
# there, as every one of them imports this file.
MODEL_PARTS = (
    'backbones',
    'balancers',
    'losses',
    'normalizers',
    'projectors',
    'relation_loss',
    'teachers',
    'transformer_projector',
    'kpu_distiller',
    'multi_task_model',
    'zero_shot',
)
# these import MMDetection
DETECTION_PARTS = ('mask_dino',)


class LateRegistry(Registry):
    """A registry of which the parts that need a toolbox come in last.

    A name that no other part has makes them come in, so distillation starts
    without MMDetection and MMPretrain and runs where they are not installed.

    Args:
        name: What is registered.
        parent: MMEngine's root registry.
        locations: Modules that run without the toolboxes.
        late_locations: Modules that need one, and the package they import.
    """

    def __init__(
        self, name: str, parent: Registry, locations: list[str], late_locations: dict[str, str]
    ) -> None:
        # The caller's package names the scope, which this frame would hide.
        super().__init__(name, parent=parent, scope='kpu_mm', locations=locations)
        self._late_locations = late_locations

    def get(self, key: str) -> Any:
        """Find a class by its name.

        Args:
            key: The name, with or without a scope.

        Raises:
            ImportError: If the name may be one of those that need a toolbox,
                which is not installed.
        """
        found = super().get(key)
        if found is not None or not self._late_locations:
            return found
        for location, package in list(self._late_locations.items()):
            if find_spec(package) is None:
                continue
            # Taken out first, as what is imported looks names up.
            del self._late_locations[location]
            import_module(location)
            if (found := super().get(key)) is not None:
                return found
        if self._late_locations:
            missing = ' and '.join(sorted(set(self._late_locations.values())))
            raise ImportError(
                f'{key!r} is no {self.name} that runs without {missing}, not installed here; '
                'correct the name, or run `make install`.'
            )
        return None


# backbones, teachers, projectors, losses, normalisers, balancers, distillers,
# heads
MODELS = LateRegistry(
    'model',
    parent=mmengine.MODELS,
    # the k-NN classifier lies with its vote and its loop
    locations=[*(f'kpu_mm.models.{part}' for part in MODEL_PARTS), 'kpu_mm.analysis.knn'],
    late_locations={f'kpu_mm.models.{part}': 'mmdet' for part in DETECTION_PARTS},
)
# image sources and the unlabelled dataset over them; folders of classes
DATASETS = LateRegistry(
    'dataset',
    parent=mmengine.DATASETS,
    locations=['kpu_mm.datasets'],
    late_locations={
        'kpu_mm.datasets.coco_dataset': 'mmdet',
        'kpu_mm.datasets.class_folders': 'mmpretrain',
    },
)
# the endless, resumable order of a stream
DATA_SAMPLERS = Registry(
    'data sampler', parent=mmengine.DATA_SAMPLERS, locations=['kpu_mm.datasets']
)
# decoding, cropping and packing of images
TRANSFORMS = LateRegistry(
    'transform',
    parent=mmengine.TRANSFORMS,
    locations=['kpu_mm.datasets', 'kpu_mm.datasets.open_clip_resize'],
    late_locations={
        'kpu_mm.datasets.detection_transforms': 'mmdet',
        'kpu_mm.datasets.coco_dataset': 'mmdet',
    },
)
# COCO scores of files without areas
METRICS = LateRegistry(
    'metric',
    parent=mmengine.METRICS,
    locations=['kpu_mm.datasets'],
    late_locations={'kpu_mm.datasets.coco_dataset': 'mmdet'},
)
# collate functions
FUNCTIONS = Registry('function', parent=mmengine.FUNCTIONS, locations=['kpu_mm.datasets'])
# resumable train loops, loops over several tasks, the k-NN test
LOOPS = Registry(
    'loop',
    parent=mmengine.LOOPS,
    locations=['kpu_mm.engine.train_loops', 'kpu_mm.engine.test_loops', 'kpu_mm.analysis.knn'],
)
# guards of losses, images, classes and backbones; feature pictures
HOOKS = Registry(
    'hook',
    parent=mmengine.HOOKS,
    locations=[
        f'kpu_mm.engine.{theme}_hooks'
        for theme in ('check', 'checkpoint', 'distill', 'machine', 'progress', 'step')
    ],
)
# runner with atomic checkpoints
RUNNERS = Registry('runner', parent=mmengine.RUNNERS, locations=['kpu_mm.engine.runner'])
# data-parallel wrapper that runs on CPU and GPU alike
MODEL_WRAPPERS = Registry(
    'model_wrapper', parent=mmengine.MODEL_WRAPPERS, locations=['kpu_mm.engine.model_wrappers']
)
# optimiser over trainable parameters only
OPTIM_WRAPPER_CONSTRUCTORS = Registry(
    'optimizer wrapper constructor',
    parent=mmengine.OPTIM_WRAPPER_CONSTRUCTORS,
    locations=['kpu_mm.engine.optimizers'],
)
# mixed precision on any device
OPTIM_WRAPPERS = Registry(
    'optim_wrapper', parent=mmengine.OPTIM_WRAPPERS, locations=['kpu_mm.engine.optimizers']
)


def find_model(kind: Any, base: type) -> type[Any] | None:
    """Look up one of our models; nothing is imported for its name.

    ``Registry.get`` imports what a name that is not registered spells, such
    as ``os.system``. That suits configs, which are code. For names that come
    out of a file, only the registered classes count.

    Args:
        kind: A registered name, with or without ``kpu_mm.``, or a class.
        base: The class must be derived from this one. Whoever passes it has
            imported the module in which the classes are registered.

    Returns:
        The class, or None if there is no such one.
    """
    if isinstance(kind, str):
        kind = MODELS.module_dict.get(kind.removeprefix('kpu_mm.'))
    return kind if isinstance(kind, type) and issubclass(kind, base) else None
