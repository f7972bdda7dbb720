"""kpu_mm: the open trainer for vision foundation models that inherit."""

from .utils.versions import check_versions
from .version import __version__

check_versions()

from .utils.config_scope import base, register_config_scope  # noqa: E402

register_config_scope()

__all__ = ['__version__', 'base']
