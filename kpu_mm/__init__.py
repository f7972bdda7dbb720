"""kpu_mm: the open trainer for vision foundation models that inherit."""

from .utils.versions import check_versions
from .version import __version__

check_versions()

from .utils.config_scope import (  # noqa: E402
    base,
    register_config_scope,
    register_plain_yaml,
)

register_config_scope()
register_plain_yaml()

__all__ = ['__version__', 'base']
