"""kpu_mm: the open trainer for vision foundation models that inherit."""

from typing import Any

from .utils.startup import (
    base,
    check_versions,
    register_config_scope,
    register_plain_yaml,
    register_transformers,
)
from .version import __version__

# First of all: what follows imports the libraries.
check_versions()

from .weights import guard_checkpoints  # noqa: E402

register_config_scope()
register_plain_yaml()
register_transformers()
guard_checkpoints()

__all__ = ['__version__', 'base', 'distill']


def __getattr__(name: str) -> Any:
    # imported when it is used, as it loads torch's and OpenMMLab's parts
    if name == 'distill':
        from .apis.distill import distill

        return distill
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
