"""kpu_mm: the open trainer for vision foundation models that inherit."""

from .version import __version__

__all__ = ['__version__']
