"""kpu_mm: the open trainer for vision foundation models that inherit."""

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

__all__ = ['__version__', 'base']
