"""What every image source offers, and reading one file."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Protocol

from ..errors import CorruptImageError

IMAGE_EXTENSIONS = ('jpg', 'jpeg', 'png', 'webp', 'bmp', 'tif', 'tiff')


class ImageSource(Protocol):
    """Numbered images, still encoded.

    A source survives pickling and forking: whatever it holds open is opened
    again, or safe to share, in each process.
    """

    def __len__(self) -> int: ...

    def read(self, index: int) -> bytes:
        """Return the encoded image; CorruptImageError if that fails."""
        ...

    def name(self, index: int) -> str:
        """Return what a person needs to find the image."""
        ...


def read_file(path: str | Path) -> bytes:
    """Read a whole file.

    Args:
        path: The file.

    Raises:
        CorruptImageError: If it is missing, no regular file, or cannot be
            read.
    """
    try:
        # A pipe or a device would block its reader or never end.
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise CorruptImageError(str(path), 'no regular file')
        with open(path, 'rb') as file:
            return file.read()
    except OSError as error:
        reason = error.strerror or str(error)
        raise CorruptImageError(str(path), reason) from error
    except ValueError as error:  # a NUL byte in the path
        raise CorruptImageError(repr(str(path)), str(error)) from error


def normalised_extensions(extensions: tuple[str, ...]) -> tuple[str, ...]:
    """Write file extensions as ``('.jpg', ...)``, in lower case.

    Args:
        extensions: With or without the dot, in any case.
    """
    return tuple(f'.{e.lower().lstrip(".")}' for e in extensions)
