"""kpu_mm: the open trainer for vision foundation models that inherit."""

from .utils.versions import check_versions
from .version import __version__

check_versions()

from .utils.config_scope import (  # noqa: E402
    base,
    register_config_scope,
    register_plain_yaml,
)
from .weights.guarded_import import guard_checkpoints  # noqa: E402

register_config_scope()
register_plain_yaml()
guard_checkpoints()

__all__ = ['__version__', 'base']
