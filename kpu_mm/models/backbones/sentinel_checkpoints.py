"""Checkpoints without the frozen sentinel, which know which one it was."""

from __future__ import annotations

from typing import Any

from mmengine.logging import print_log
from mmengine.model import BaseModule
from torch import Tensor

from kpu_mm.weights.state_dict import (
    json_from_tensor,
    json_to_tensor,
    load_state,
)

from .sentinel import Sentinel

_PREFIXES = ('student.', 'backbone.')


class SentinelCheckpoints(BaseModule):
    """Half of a backbone: what its state dict holds and accepts.

    Weights of a frozen sentinel stay out of the state dict, which holds its
    name and checksum instead; loading compares them. Weights of a trained
    one are part of it, now and after later loads into a frozen backbone.
    """

    sentinel: Sentinel

    def _guard_checkpoints(self, sentinel: Sentinel, trained: bool) -> None:
        self._sentinel_from_source = not trained
        self._state_holds_sentinel = False
        self._checksum = None if trained else sentinel.checksum()
        self._register_state_dict_hook(_drop_sentinel)
        self.register_load_state_dict_pre_hook(_fill_in_sentinel)
        self.register_load_state_dict_post_hook(_compare_sentinel)

    def get_extra_state(self) -> Tensor:
        """Name and checksum of the sentinel, as JSON in a uint8 tensor."""
        state = {
            'sentinel': self.sentinel.name,
            'sha256': self._checksum if self._sentinel_from_source else None,
        }
        return json_to_tensor(state)

    def set_extra_state(self, state: Tensor) -> None:
        """Check that the checkpoint belongs to this sentinel.

        Raises:
            RuntimeError: If it was trained with other sentinel weights.
        """
        saved = json_from_tensor(state)
        if self._state_holds_sentinel or not self._sentinel_from_source:
            return
        if saved['sha256'] != self._checksum:
            raise RuntimeError(
                f'the checkpoint was trained with sentinel '
                f'{saved["sentinel"]!r} (sha256 {_short(saved["sha256"])}), '
                f'but this backbone has {self.sentinel.name!r} (sha256 '
                f'{_short(self._checksum)}); set `sentinel` to the weights '
                'that it was trained with.'
            )

    def init_weights(self) -> None:
        """Load ``init_cfg``'s checkpoint, if one is given."""
        if self.init_cfg is None or self.is_init:
            super().init_weights()
            return
        if self.init_cfg.get('type') != 'Pretrained':
            raise ValueError(
                f'init_cfg={self.init_cfg}: {type(self).__name__} takes '
                "dict(type='Pretrained', checkpoint=...) only."
            )
        path = self.init_cfg['checkpoint']
        state = load_state(path)
        prefix = self.init_cfg.get('prefix')
        for candidate in (prefix,) if prefix else _PREFIXES:
            part = {
                key[len(candidate) :]: value
                for key, value in state.items()
                if key.startswith(candidate)
            }
            if part:
                state = part
                break
        missing, unexpected = self.load_state_dict(state, strict=False)
        if len(unexpected) == len(state):
            raise RuntimeError(
                f'{path}: no key fits {type(self).__name__}; the first are '
                f'{list(state)[:3]}.'
            )
        print_log(
            f'{type(self).__name__} loaded {path}: missing keys '
            f'{missing or "none"}, unexpected keys {unexpected or "none"}',
            logger='current',
        )
        self._is_init = True


def _short(checksum: str | None) -> str:
    return 'of trained weights' if checksum is None else checksum[:12]


def _drop_sentinel(
    module: SentinelCheckpoints, state: dict[str, Any], prefix: str, _: Any
) -> None:
    if module._sentinel_from_source:
        for key in [k for k in state if k.startswith(prefix + 'sentinel.')]:
            del state[key]


def _fill_in_sentinel(
    module: SentinelCheckpoints, state: dict[str, Any], prefix: str, *_: Any
) -> None:
    """A checkpoint without sentinel weights leaves them as they are."""
    prefix = prefix + 'sentinel.'
    module._state_holds_sentinel = any(key.startswith(prefix) for key in state)
    if not module._state_holds_sentinel:
        own = module.sentinel.state_dict(prefix=prefix, keep_vars=True)
        state.update({key: value.data for key, value in own.items()})


def _compare_sentinel(module: SentinelCheckpoints, _: Any) -> None:
    """Weights that replaced the source's belong into our checkpoints too."""
    if module._state_holds_sentinel and module._sentinel_from_source:
        module._sentinel_from_source = (
            module.sentinel.checksum() == module._checksum
        )
