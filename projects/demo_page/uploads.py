"""UploadFolder: the one place that the page reads files from."""

from __future__ import annotations

import hashlib
import io
import os
import re
import shutil
import stat
import tempfile
import warnings
from pathlib import Path
from typing import Any

from PIL import Image

# What cameras and browsers write. Pillow knows many more formats, some of
# which start other programs (EPS) or have had weak decoders.
FORMATS = ('AVIF', 'BMP', 'GIF', 'JPEG', 'PNG', 'TIFF', 'WEBP')
# One sentence for every path that is not an upload: a different one for
# paths that exist would tell which files the server has.
NOT_UPLOADED = 'the image is not among the uploads of this page; upload it.'
NO_IMAGE = f'the upload is not an image; this page takes {", ".join(FORMATS)}.'


class UploadFolder:
    """Stores uploaded images and reads these back, and nothing else.

    Args:
        max_bytes: Larger files are neither stored nor read.
        parent: Where the folder is made. Defaults to ``GRADIO_TEMP_DIR`` or
            the system's folder for temporary files.

    Attributes:
        folder: The new folder, which only this user can open.
    """

    def __init__(self, max_bytes: int, parent: str | None = None) -> None:
        self.max_bytes = max_bytes
        parent = parent or os.environ.get('GRADIO_TEMP_DIR')
        if parent:
            Path(parent).mkdir(parents=True, exist_ok=True)
        # a folder of its own: /tmp/gradio is shared by all pages of a machine
        made = tempfile.mkdtemp(prefix='kpu_mm_page_', dir=parent)
        self.folder = Path(made).resolve()

    @property
    def too_large(self) -> str:
        """The sentence for a file above the limit."""
        return (
            'the upload exceeds the maximum allowed size of '
            f'{self.max_bytes / 2**20:g} MB.'
        )

    def store(self, name: str, data: bytes) -> Path:
        """Keep an upload if it is an image.

        Args:
            name: The file's name, as the browser sent it.
            data: The file.

        Returns:
            Where it lies now.

        Raises:
            ValueError: If it is too large or not an image.
        """
        if len(data) > self.max_bytes:
            raise ValueError(self.too_large)
        if not _is_image(data):
            raise ValueError(NO_IMAGE)
        # the hash keeps equal names apart and cannot be guessed
        folder = self.folder / hashlib.sha256(data).hexdigest()
        folder.mkdir(exist_ok=True)
        safe = re.sub(r'[^\w.\- ]', '', Path(name).name).lstrip('.')
        path = folder / (safe[-100:] or 'image')
        path.write_bytes(data)
        return path

    def find(self, path: Any) -> Path:
        """The regular file inside the folder that a request names.

        Args:
            path: Anything that a request may hold.

        Returns:
            The file, without links.

        Raises:
            ValueError: If it is not one; the same sentence always.
        """
        try:
            # Lexically first: the file system is not asked about others.
            named = Path(os.path.normpath(path))
            if self.folder in named.parents:
                real = named.resolve(strict=True)
                # again without links, which may lead out of the folder
                if self.folder in real.parents and real.is_file():
                    return real
        except (OSError, RuntimeError, TypeError, ValueError):
            pass  # names no file: a loop of links, a NUL byte, a number ...
        raise ValueError(NOT_UPLOADED)

    def read(self, path: Any) -> bytes:
        """An upload's content.

        Args:
            path: Anything that a request may hold.

        Raises:
            ValueError: If it is no upload, or too large.
        """
        file = self.find(path)
        # should the file have been replaced since it was found: no link is
        # followed, and a FIFO does not block
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
        try:
            handle = os.open(file, flags)
        except OSError:
            raise ValueError(NOT_UPLOADED) from None
        with os.fdopen(handle, 'rb') as stream:
            state = os.fstat(handle)
            if not stat.S_ISREG(state.st_mode):
                raise ValueError(NOT_UPLOADED)
            if state.st_size > self.max_bytes:
                raise ValueError(self.too_large)
            return stream.read(self.max_bytes)

    def remove(self) -> None:
        """Delete the folder and all uploads."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _is_image(data: bytes) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        try:
            with Image.open(io.BytesIO(data), formats=FORMATS):
                return True
        except Image.DecompressionBombError:
            return True  # its size is told when it is asked about
        # a plugin raises anything at a damaged header
        except Exception:
            return False
