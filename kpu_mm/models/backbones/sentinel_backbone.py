"""What the backbones over a sentinel have in common, checkpoints above all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mmengine.logging import print_log
from torch import Tensor

from kpu_mm.structures import Features
from kpu_mm.weights.state_dict import json_from_tensor, json_to_tensor, load_state, select_prefix

from ..encoder import level_masks
from ..vits import ViTTokens, build_vit
from .base_backbone import IMAGENET_MEAN, IMAGENET_STD, BaseBackbone


class SentinelBackbone(BaseBackbone):
    """A backbone with a plain ViT in it, the sentinel, trained or not.

    Weights of a frozen sentinel stay out of the state dict, which holds its
    name and checksum instead; loading compares them, whether the sentinel is
    frozen here or not. Weights of a trained one are part of it, now and after
    later loads into a frozen backbone.

    Args:
        sentinel: Hub name, local folder or config of the sentinel; see
            :class:`KPUBackbone`.
        out_type: 'pyramid', 'summary', 'summary_spatial' or 'features'.
        out_indices: Which maps a pyramid has.
        init_cfg: ``dict(type='Pretrained', checkpoint=...)`` or None.

    Attributes:
        external_prefixes: What the names of parts start with that are no
            part of a student: no distillation trains them, no export holds
            them.
        compares_sentinel: Whether loading compares the checksum; False for
            owners whose states always hold the sentinel's weights, but may
            come weight by weight. Defaults to True.
    """

    external_prefixes: tuple[str, ...] = ()
    compares_sentinel = True
    to_own_scale: Tensor
    to_own_shift: Tensor

    def __init__(
        self,
        sentinel: str | dict[str, Any],
        out_type: str,
        out_indices: Sequence[int],
        init_cfg: dict[str, Any] | None,
    ) -> None:
        super().__init__(out_type, out_indices, init_cfg)
        self.sentinel = build_vit(sentinel)
        given = [255 * m for m in (*self.sentinel.mean, *self.sentinel.std)]
        # DINO and many others have ImageNet's own.
        self._converts = not np.allclose(given, (*IMAGENET_MEAN, *IMAGENET_STD))
        if self._converts:
            # (3,) -> (3, 1, 1), as mean and std
            mean, std = torch.tensor(given).view(2, 3, 1, 1)
            self.register_buffer('to_own_scale', self.std / std, persistent=False)
            self.register_buffer('to_own_shift', (self.mean - mean) / std, persistent=False)

    def embed(self, images: Tensor) -> ViTTokens:
        """The sentinel's tokens before its first layer.

        Args:
            images: Images normalised with ImageNet's mean and standard
                deviation, (B, 3, H, W).
        """
        return self.sentinel.embed(self.to_sentinel(images))

    def to_sentinel(self, images: Tensor) -> Tensor:
        """ImageNet's normalisation -> that of the sentinel's training.

        Args:
            images: (B, 3, H, W).
        """
        return images * self.to_own_scale + self.to_own_shift if self._converts else images

    def normalise(self, images: Tensor, mask: Tensor | None = None) -> Tensor:
        """Raw RGB in [0, 255] -> what the backbone takes; padding is zero.

        Args:
            images: (B, 3, H, W), uint8 or float.
            mask: (B, H, W) bool, True where the image is; None where all is.
        """
        images = (images.to(self.mean.dtype) - self.mean) / self.std
        return images if mask is None else images * mask.unsqueeze(1)

    def encode(self, images: Tensor, mask: Tensor | None = None) -> Features:
        """Summary and all maps of raw images.

        Args:
            images: RGB in [0, 255], uint8 or float, (B, 3, H, W).
            mask: True where a pixel is real and not padding, (B, H, W)
                bool; None if all are. Defaults to None.

        Returns:
            Summary (B, C) and maps (B, C, H_i, W_i); with masks of the maps
            if ``mask`` is given.
        """
        # A compiled student has another function as its attribute extract,
        # so what is called here must be looked up on the object.
        features = self.extract(self.normalise(images, mask))
        return features._replace(masks=level_masks(features.maps, mask))

    def freeze_summary(self) -> None:
        """Freeze what serves the summary alone: DDP refuses unused gradients."""
        self.sentinel.pooling.requires_grad_(False)

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """How deep a parameter lies, for layer-wise learning rates.

        MMPretrain's protocol. Patches and positions of the sentinel are at
        depth 0, its layers from 1; all else is deepest.

        Args:
            param_name: Name of the parameter.
            prefix: What the name has before the backbone's own. Defaults
                to ''.

        Returns:
            The depth, and the number of depths.
        """
        name = param_name.removeprefix(prefix)
        # embedding 0, layers 1 .. n, and the norm with all else n + 1
        last = self.sentinel.num_layers + 1
        if not name.startswith('sentinel.'):
            return last, last + 1
        return self.sentinel.depth_of(name.removeprefix('sentinel.')), last + 1

    def _guard_checkpoints(self, trained: bool) -> None:
        """Set what the state dict holds; the last step of a constructor."""
        self._sentinel_from_source = not trained
        self._state_holds_sentinel = False
        self._checksum = None if trained else self.sentinel.checksum()
        self._register_state_dict_hook(_drop_sentinel)
        self.register_load_state_dict_pre_hook(_fill_in_sentinel)
        self.register_load_state_dict_post_hook(_compare_sentinel)

    def get_extra_state(self) -> Tensor:
        """Name and checksum of the sentinel, as JSON in a uint8 tensor."""
        sha256 = self._checksum if self._sentinel_from_source else None
        return json_to_tensor(dict(sentinel=self.sentinel.name, sha256=sha256))

    def set_extra_state(self, state: Tensor) -> None:
        """Check that the checkpoint belongs to this sentinel.

        Raises:
            RuntimeError: If it was trained with other sentinel weights.
        """
        # With sentinel weights of its own a checkpoint needs no comparison.
        if self._state_holds_sentinel or not self.compares_sentinel:
            return
        saved = json_from_tensor(state)
        own = self._checksum if self._sentinel_from_source else self.sentinel.checksum()
        if saved['sha256'] != own:
            raise RuntimeError(
                f'the checkpoint was trained with sentinel {saved["sentinel"]!r} (sha256 '
                f'{_short(saved["sha256"])}), but this backbone has {self.sentinel.name!r} (sha256 '
                f'{_short(own)}); set `sentinel` to the weights that it was trained with.'
            )

    def init_weights(self) -> None:
        """Load ``init_cfg``'s checkpoint, if one is given."""
        if self.init_cfg is None or self.is_init:
            super().init_weights()
            return
        given: Any = self.init_cfg
        # MMEngine takes a list of one, too.
        if isinstance(given, list) and len(given) == 1:
            given = given[0]
        if isinstance(given, list) or given.get('type') != 'Pretrained':
            raise ValueError(
                f'init_cfg={self.init_cfg}: {type(self).__name__} takes '
                "dict(type='Pretrained', checkpoint=...) only."
            )
        path = given['checkpoint']
        state = load_state(path)
        prefix = given.get('prefix')
        # The student of a distiller, the backbone of another model, or all
        # of an exported file.
        for name in (prefix,) if prefix else ('student.', 'backbone.'):
            if part := select_prefix(state, name):
                state = part
                break
        # not strict: a detector's checkpoint may lack a pyramid's levels
        missing, unexpected = self.load_state_dict(state, strict=False)
        if len(unexpected) == len(state):
            raise RuntimeError(
                f'{path}: no key fits {type(self).__name__}; the first are {list(state)[:3]}.'
            )
        print_log(
            f'{type(self).__name__} loaded {path}: missing keys '
            f'{missing or "none"}, unexpected keys {unexpected or "none"}',
            logger='current',
        )
        self._is_init = True


def _short(checksum: str | None) -> str:
    return 'of trained weights' if checksum is None else checksum[:12]


def _drop_sentinel(module: SentinelBackbone, state: dict[str, Any], prefix: str, _: Any) -> None:
    """Hook after ``state_dict()``."""
    if module._sentinel_from_source:
        for key in [k for k in state if k.startswith(f'{prefix}sentinel.')]:
            del state[key]


def _fill_in_sentinel(
    module: SentinelBackbone, state: dict[str, Any], prefix: str, *_: Any
) -> None:
    """Hook before ``load_state_dict()``: no sentinel's weights are missing.

    A checkpoint without them leaves them as they are.
    """
    prefix = f'{prefix}sentinel.'
    module._state_holds_sentinel = any(key.startswith(prefix) for key in state)
    if not module._state_holds_sentinel:
        own = module.sentinel.state_dict(prefix=prefix, keep_vars=True)
        # .data shares the memory: what is loaded is what was there
        state.update({key: value.data for key, value in own.items()})


def _compare_sentinel(module: SentinelBackbone, _: Any) -> None:
    """Hook after ``load_state_dict()``.

    Weights that replaced the source's belong into our checkpoints too.
    """
    if module._state_holds_sentinel and module._sentinel_from_source:
        found = module.sentinel.checksum()
        module._sentinel_from_source = found == module._checksum
