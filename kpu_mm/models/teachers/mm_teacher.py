"""The backbone of any OpenMMLab model."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mmengine import Config
from mmengine.hub import get_config
from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import DefaultScope
from torch import Tensor, nn

from kpu_mm.registry import MODELS
from kpu_mm.structures import Features
from kpu_mm.weights.state_dict import load_state, select_prefix

from .base_teacher import BaseTeacher

_ROOTS = ('mmengine', 'mmcv')  # what they register is in the root registry
_FILE = re.compile(r'[/\\]|\.(py|json|ya?ml|pkl|pickle|pth?|npy|npz)$', re.I)
_TOOLBOXES = (*_ROOTS, 'mmdet', 'mmseg', 'mmpretrain', 'kpu_mm')


@MODELS.register_module()
class MMTeacher(BaseTeacher):
    """The maps of a detector's, segmentor's or classifier's backbone.

    Normalisation and channel order are those of the config's
    ``data_preprocessor``, whose pipeline is taken to read images as BGR, as
    OpenMMLab's does. There is no summary.

    Args:
        config: A config file, a name such as
            'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py', or a dict
            with ``model`` (and ``default_scope``, unless its types have
            prefixes such as 'mmdet.'). A dict may come out of an exported
            folder, so all types in it must be registered.
        checkpoint: Weights of the model in a local file.
        with_neck: Give the maps of the neck instead. Defaults to False.
        size_divisor: Resize images to multiples of this, for backbones that
            would crop. Defaults to 1.

    Raises:
        RuntimeError: If the weights don't fit.
        ValueError: If the config lacks what is needed.
    """

    backbone: nn.Module

    def __init__(
        self,
        config: str | Mapping[str, Any],
        checkpoint: str,
        with_neck: bool = False,
        size_divisor: int = 1,
    ) -> None:
        whole = _read(config)
        name = f"'{config}'" if isinstance(config, str) else 'given as a dict'
        model: Any = whole.get('model')
        parts = ('backbone', 'neck') if with_neck else ('backbone',)
        for part in parts:
            if not model or not model.get(part):
                raise ValueError(f'the config {name} has no {part}')
        key = 'data_preprocessor'
        images = model.get(key) or whole.get(key)
        if not images or not images.get('mean') or not images.get('std'):
            raise ValueError(
                f'the data_preprocessor of the config {name} has no mean and '
                'std: add them, on the [0, 255] scale'
            )
        swaps = ('bgr_to_rgb', 'rgb_to_bgr', 'to_rgb')
        is_rgb = any(images.get(key) for key in swaps)
        mean, std = (
            [value / 255 for value in images[key]] for key in ('mean', 'std')
        )
        # the config's statistics are in the order of the model's channels
        order = 1 if is_rgb else -1
        super().__init__(
            mean[::order], std[::order], size_divisor=size_divisor
        )
        self.is_rgb = is_rgb
        scope = whole.get('default_scope')
        if not isinstance(config, str):
            for part in ('backbone', 'neck'):
                model[part] = _only_registered(model.get(part), scope)
        state = load_state(checkpoint)
        self.neck: Any = None
        for part in parts:
            with DefaultScope.overwrite_default_scope(scope):
                module = MMENGINE_MODELS.build(model[part])
            _fill(module, part, state, checkpoint)
            setattr(self, part, module)
        self.probe()

    def extract(self, images: Tensor, mask: Tensor | None) -> Features:
        """Run the backbone, and the neck if asked for.

        Args:
            images: Normalised RGB images, (B, 3, H, W).
            mask: Not used: padding is zero and part of the image.

        Returns:
            The maps (B, C, H, W).
        """
        # RGB -> BGR
        maps = self.backbone(images if self.is_rgb else images.flip(1))
        if self.neck is not None:
            maps = self.neck(maps)
        several = isinstance(maps, tuple | list)
        return Features(None, tuple(maps) if several else (maps,))


def _read(config: str | Mapping[str, Any]) -> Mapping[str, Any]:
    if isinstance(config, Mapping):
        return Config(dict(config))
    if '::' in config:
        return get_config(config)
    if not Path(config).is_file():
        raise ValueError(f"the config file '{config}' does not exist")
    return Config.fromfile(config)


def _only_registered(config: Any, scope: str | None) -> Any:
    """A config without ``init_cfg``, if it can run nothing unregistered.

    MMEngine imports whatever an unknown type or scope spells.

    Raises:
        ValueError: If a type or a scope is not registered, or a value is a
            file.
    """
    if isinstance(config, list | tuple):
        return [_only_registered(value, scope) for value in config]
    # registered models such as MMDetection's
    # KnowledgeDistillationSingleStageDetector run a file as a config
    if isinstance(config, str) and _FILE.search(config):
        raise ValueError(
            f'MMTeacher: {config!r} in the backbone or neck is a file, which '
            'some models run or unpickle; give a config file as config.'
        )
    if not isinstance(config, Mapping):
        return config
    scope = config.get('_scope_', scope)
    if scope not in (None, *_TOOLBOXES, *MMENGINE_MODELS.children):
        raise ValueError(
            f'MMTeacher: no model of type {config.get("type")!r} is built in '
            f'the scope {scope!r}; known are {", ".join(_TOOLBOXES)} and '
            'those of your own registries.'
        )
    kind = config.get('type')
    if isinstance(kind, str) and not _is_registered(kind, scope):
        raise ValueError(
            f'MMTeacher: no model of type {kind!r} is registered in the '
            f'scope {scope!r}; known are the models of '
            f'{", ".join(_TOOLBOXES)} and those of your own modules.'
        )
    if config.get('trust_remote_code'):
        raise ValueError(
            'MMTeacher: trust_remote_code would run code of the hub; remove '
            'it from the config.'
        )
    # weights come from the checkpoint: init_cfg has nothing to do
    return {
        key: _only_registered(value, scope)
        for key, value in config.items()
        if key != 'init_cfg'
    }


def _is_registered(kind: str, scope: str | None) -> bool:
    prefix, _, name = kind.rpartition('.')
    place = prefix or scope or 'mmengine'
    roots = MMENGINE_MODELS
    if place in _TOOLBOXES and place not in _ROOTS and find_spec(place):
        import_module(f'{place}.registry')
    registry = roots if place in _ROOTS else roots.children.get(place)
    if registry is None:
        return False
    # types register when the toolbox's modules are imported
    registry.import_from_location()
    # without a prefix MMEngine falls back on the root registry
    known = {*registry.module_dict, *(() if prefix else roots.module_dict)}
    return name in known


def _fill(
    module: nn.Module, part: str, state: Mapping[str, Tensor], checkpoint: str
) -> None:
    """Fill a part of a model from the whole one's weights, strictly."""
    own = select_prefix(state, f'{part}.')
    if not own:
        raise RuntimeError(
            f"'{checkpoint}' has no weights of a {part}; pass the checkpoint "
            'of the whole model'
        )
    try:
        module.load_state_dict(own)
    except RuntimeError as error:
        text = ' '.join(str(error).split())[:300]
        raise RuntimeError(
            f"the {part} in '{checkpoint}' does not fit the config: {text}"
        ) from error
