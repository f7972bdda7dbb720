"""What ``model=`` of an Inferencer stands for."""

from __future__ import annotations

import copy
import difflib
import os
from pathlib import Path
from typing import Any, TypeAlias

from mmengine.config import Config
from mmengine.infer import BaseInferencer

Model: TypeAlias = str | os.PathLike[str] | Config | dict[str, Any]


def is_student(model: Model) -> bool:
    """Whether this is a student and no config.

    Args:
        model: A folder that ``tools/export.py`` wrote, a checkpoint of a
            distillation run, or a config in any form.
    """
    if not isinstance(model, (str, os.PathLike)):
        return False
    path = Path(model).expanduser()
    return path.is_dir() or path.suffix in ('.pth', '.pt', '.safetensors')


def find_config(model: Model) -> Config:
    """Read a config.

    Args:
        model: A config, its path, or the name of one of the package's: its
            path below ``configs`` without suffix, such as
            'zero_shot/coco/kpu-vitb'.

    Returns:
        A config that the caller may change.

    Raises:
        FileNotFoundError: If there is no such config.
    """
    if isinstance(model, Config):
        return copy.deepcopy(model)
    if isinstance(model, dict):
        return Config(copy.deepcopy(model))
    path = Path(model).expanduser()
    if path.suffix == '.py':
        if not path.is_file():
            raise FileNotFoundError(f"there is no config file '{model}'.")
        return Config.fromfile(path)
    named = _named(Path(BaseInferencer._get_repo_or_mim_dir('kpu_mm')))
    if str(model) not in named:
        close = difflib.get_close_matches(str(model), named, cutoff=0.4)
        hint = f'did you mean one of {close}?' if close else 'see configs/.'
        raise FileNotFoundError(
            f"'{model}' is neither a folder, a checkpoint nor a config of "
            f'the package; {hint}'
        )
    return Config.fromfile(named[str(model)])


def _named(root: Path) -> dict[str, Path]:
    configs = root / 'configs'
    return {
        str(path.relative_to(configs).with_suffix('')): path
        for path in sorted(configs.rglob('*.py'))
        if '_base_' not in path.parts
    }
