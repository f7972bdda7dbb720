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
from kpu_mm.weights.state_dict import load_state

from .base_teacher import BaseTeacher

_SWAPS = ('bgr_to_rgb', 'rgb_to_bgr', 'to_rgb')
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

    def __init__(
        self,
        config: str | Mapping[str, Any],
        checkpoint: str,
        with_neck: bool = False,
        size_divisor: int = 1,
    ) -> None:
        whole = _read(config)
        model = whole.get('model')
        if not model or 'backbone' not in model:
            raise ValueError(f'the config {_name(config)} has no backbone')
        if with_neck and not model.get('neck'):
            raise ValueError(f'the config {_name(config)} has no neck')
        images = model.get('data_preprocessor') or whole.get(
            'data_preprocessor'
        )
        if not images or not images.get('mean') or not images.get('std'):
            raise ValueError(
                f'the data_preprocessor of {_name(config)} has no mean and '
                'std: add them, on the [0, 255] scale'
            )
        swapped = any(images.get(key) for key in _SWAPS)
        order = slice(None) if swapped else slice(None, None, -1)
        super().__init__(
            # the file's statistics are in the order that the model sees
            [value / 255 for value in images['mean']][order],
            [value / 255 for value in images['std']][order],
            size_divisor=size_divisor,
        )
        self.is_rgb = swapped
        scope = whole.get('default_scope')
        if not isinstance(config, str):
            for part in ('backbone', 'neck'):
                model[part] = _only_registered(model.get(part), scope)
        state = load_state(checkpoint)
        self.backbone = _part('backbone', model, state, scope, checkpoint)
        self.neck = (
            _part('neck', model, state, scope, checkpoint)
            if with_neck
            else None
        )
        self.probe()

    def extract(
        self, images: Tensor, mask: Tensor | None
    ) -> tuple[None, tuple[Tensor, ...]]:
        """Run the backbone, and the neck if asked for.

        Args:
            images: Normalised RGB images, (B, 3, H, W).
            mask: Not used: padding is zero and part of the image.

        Returns:
            None and the maps (B, C, H, W).
        """
        maps = self.backbone(images if self.is_rgb else images.flip(1))
        if self.neck is not None:
            maps = self.neck(maps)
        return None, tuple(maps) if isinstance(maps, tuple | list) else (maps,)


def _read(config: str | Mapping[str, Any]) -> Mapping[str, Any]:
    if isinstance(config, Mapping):
        return Config(dict(config))
    if '::' in config:
        return get_config(config)
    if not Path(config).is_file():
        raise ValueError(f"the config file '{config}' does not exist")
    return Config.fromfile(config)


def _only_registered(config: Any, scope: str | None) -> Any:
    """A config without ``init_cfg``, if all its types are registered.

    It names no files either: registered models such as MMDetection's
    KnowledgeDistillationSingleStageDetector run one as a config. MMEngine
    imports whatever an unknown type or scope spells. Weights come
    from the checkpoint, so that ``init_cfg`` has nothing to do.

    Raises:
        ValueError: If a type or a scope is not registered, or a value is a
            file.
    """
    if isinstance(config, list | tuple):
        return [_only_registered(value, scope) for value in config]
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
            f'the scope {scope!r}, which is none of {", ".join(_TOOLBOXES)} '
            'nor of your own registries.'
        )
    kind = config.get('type')
    if isinstance(kind, str) and not _is_registered(kind, scope):
        raise ValueError(
            f'MMTeacher: no model of type {kind!r} is registered'
            + (f' in {scope!r}; ' if scope else '; ')
            + f'known are the models of {", ".join(_TOOLBOXES)} and those '
            'that your own modules have registered.'
        )
    if config.get('trust_remote_code'):
        raise ValueError(
            'MMTeacher: trust_remote_code would run code of the hub; remove '
            'it from the config.'
        )
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
    registry.import_from_location()
    known = {*registry.module_dict, *(() if prefix else roots.module_dict)}
    return name in known


def _name(config: str | Mapping[str, Any]) -> str:
    return f"'{config}'" if isinstance(config, str) else 'given as a dict'


def _part(
    name: str,
    model: Mapping[str, Any],
    state: Mapping[str, Tensor],
    scope: str | None,
    checkpoint: str,
) -> nn.Module:
    """Build a part of a model and fill it, strictly."""
    with DefaultScope.overwrite_default_scope(scope):
        module = MMENGINE_MODELS.build(model[name])
    prefix = f'{name}.'
    own = {
        key.removeprefix(prefix): value
        for key, value in state.items()
        if key.startswith(prefix)
    }
    if not own:
        raise RuntimeError(
            f"'{checkpoint}' has no weights of a {name}; pass the checkpoint "
            'of the whole model'
        )
    try:
        module.load_state_dict(own)
    except RuntimeError as error:
        text = ' '.join(str(error).split())[:300]
        raise RuntimeError(
            f"the {name} in '{checkpoint}' does not fit the config: {text}"
        ) from error
    return module
