"""Make ``kpu_mm::...`` a base that MMEngine's configs know."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from mmengine.config.utils import MODULE2PACKAGE
from mmengine.fileio import register_handler
from mmengine.fileio.handlers import YamlHandler

from .versions import installed


def register_config_scope() -> None:
    """Add to MMEngine's fixed list what it does not know.

    ``kpu_mm`` is not in it, and ``mmseg`` stands there with a distribution
    (mmsegmentation) that is not the one the maintained line installs.
    """
    MODULE2PACKAGE['kpu_mm'] = 'kpu_mm'
    if installed(('mmsegmentation',)) is None and installed(
        ('onedl-mmsegmentation',)
    ):
        MODULE2PACKAGE['mmseg'] = 'mmseg'


def register_plain_yaml() -> None:
    """Let MMEngine read YAML as data.

    Its own loader builds any Python object that a tag such as
    ``!!python/object/apply`` names.
    """
    register_handler(['yaml', 'yml'])(_PlainYaml)


class _PlainYaml(YamlHandler):
    def load_from_fileobj(self, file: Any, **_: Any) -> Any:
        try:
            return yaml.safe_load(file)
        except yaml.constructor.ConstructorError as error:
            raise ValueError(
                'a YAML config holds plain values, no Python objects '
                f'({error.problem}); write it as .py instead.'
            ) from error


def base(config: str) -> str:
    """Name a config of kpu_mm so that it can be a ``_base_`` anywhere.

    MMEngine reads ``_base_`` before ``custom_imports``, so in a tool that has
    not imported kpu_mm the plain text ``'kpu_mm::distill/kpu_vitb.py'`` is
    unknown. It evaluates the right-hand side, however, and this works in
    every tool::

        _base_ = __import__('kpu_mm').base('distill/kpu_vitb.py')

    Args:
        config: The path of a config below ``configs/``.

    Returns:
        The path with the scope in front, ``kpu_mm::distill/kpu_vitb.py``.

    Raises:
        FileNotFoundError: There is no such config.
    """
    configs = Path(__file__).parents[1] / '.mim' / 'configs'
    if not (configs / config).is_file():
        raise FileNotFoundError(
            f'kpu_mm has no config {config!r} in {configs}; in a clone run '
            '`pip install --no-deps -e .` once, which links the configs there.'
        )
    return f'kpu_mm::{config}'
