"""TrainedInferencer: a decoder of OpenMMLab with its checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import DATASETS, MODELS
from torch import nn

from kpu_mm.engine.checkpoint_hooks import split_checkpoint, tasks_in
from kpu_mm.weights.checkpoint_file import read_checkpoint

from .base_inferencer import ImageInferencer
from .find_config import Model, find_config
from .inputs import is_url

_COMPUTED = '.position_ids'  # some versions of transformers save it


class TrainedInferencer(ImageInferencer):
    """What the Inferencers of trained decoders share.

    All weights come from the checkpoint, as in ``tools/test.py``; that of a
    joint run will do for the config of one of its tasks. Class names come
    from the checkpoint, else from the config's test data set.

    Args:
        model: A config: its name, such as
            'downstream/coco/mask-dino_r50_4s_50e', its path, or the config
            itself.
        weights: The checkpoint, a file. Defaults to None, the config's
            ``load_from``.
        device: Where to compute; None takes a GPU if there is one. Defaults
            to None.
        show_progress: Show a progress bar. Defaults to True.

    Raises:
        FileNotFoundError: If something is missing.
        RuntimeError: If the checkpoint is broken.
        ValueError: If the checkpoint does not fit, or nothing names the
            classes.
    """

    names: Sequence[str]

    def __init__(
        self,
        model: Model,
        weights: str | Path | None = None,
        device: str | None = None,
        show_progress: bool = True,
    ) -> None:
        cfg = find_config(model)
        self._weights = weights or cfg.get('load_from')
        if self._weights is None:
            raise ValueError(
                'the config does not say where its weights are; pass the '
                'checkpoint as weights.'
            )
        if is_url(str(self._weights)):
            raise ValueError(
                f"'{self._weights}' is an address: download the file and "
                'pass its path as weights.'
            )
        super().__init__(cfg, device, show_progress)

    def _init_model(
        self, cfg: Any, weights: str | None, device: str = 'cpu'
    ) -> nn.Module:
        checkpoint = read_checkpoint(self._weights)
        task = _task(cfg)
        if task is not None and tasks_in(checkpoint):
            checkpoint = split_checkpoint(checkpoint, task)
        self.names = _find_names(checkpoint, cfg)
        model: nn.Module = MODELS.build(cfg.model)
        _fill(model, checkpoint.get('state_dict', checkpoint), self._weights)
        return model.to(device).eval()


def _task(cfg: Config) -> str | None:
    """Which part of a joint checkpoint the config describes."""
    hook = cfg.get('default_hooks', {}).get('joint_checkpoint')
    return None if hook is None else str(hook.task)


def _fill(model: nn.Module, state: Mapping[str, Any], path: Any) -> None:
    own = model.state_dict()
    state = {
        name: value
        for name, value in state.items()
        if name in own or not name.endswith(_COMPUTED)
    }
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        lines = [line.strip()[:200] for line in str(error).splitlines()]
        reason = '; '.join(line for line in lines[:4] if line)
        raise ValueError(
            f"'{path}' does not fit the config: {reason}"
        ) from error


def _find_names(checkpoint: Mapping[str, Any], cfg: Config) -> list[str]:
    meta = (checkpoint.get('meta') or {}).get('dataset_meta') or {}
    names = {key.lower(): value for key, value in meta.items()}.get('classes')
    if names is None:
        dataset = dict(cfg.test_dataloader.dataset, lazy_init=True)
        names = DATASETS.build(dataset).metainfo.get('classes')
    if names is None:
        raise ValueError(
            'neither the checkpoint nor the config names the classes; set '
            'test_dataloader.dataset.metainfo=dict(classes=[...]).'
        )
    return list(names)
