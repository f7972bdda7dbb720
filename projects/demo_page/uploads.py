"""The folder of uploads, the only one that the page reads files from."""

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

# The formats of cameras and browsers. Pillow reads many more, of which some
# start other programs (EPS) and some had vulnerable decoders.
FORMATS = ('AVIF', 'BMP', 'GIF', 'JPEG', 'PNG', 'TIFF', 'WEBP')
# One message for every path that is not an upload. Different messages would
# reveal which files exist on the server.
NOT_UPLOADED = 'the image is not among the uploads of this page; upload it.'
NO_IMAGE = f'the upload is not an image; this page takes {", ".join(FORMATS)}.'


class UploadFolder:
    """Stores uploaded images and reads no other files.

    Args:
        max_bytes: Larger files are neither stored nor read.
        parent: Folder to create the new folder in. Defaults to None, which
            means ``GRADIO_TEMP_DIR`` or the system's temporary folder.

    Attributes:
        folder: The new folder, which only this user can open.
    """

    def __init__(self, max_bytes: int, parent: str | None = None) -> None:
        self.max_bytes = max_bytes
        parent = parent or os.environ.get('GRADIO_TEMP_DIR')
        if parent:
            Path(parent).mkdir(parents=True, exist_ok=True)
        # A new folder, because all pages of a machine share /tmp/gradio.
        made = tempfile.mkdtemp(prefix='kpu_mm_page_', dir=parent)
        self.folder = Path(made).resolve()

    @property
    def too_large(self) -> str:
        """The message for a file above the limit."""
        return f'the upload exceeds the maximum allowed size of {self.max_bytes / 2**20:g} MB.'

    def store(self, name: str, data: bytes) -> Path:
        """Store an upload if it is an image.

        Args:
            name: The file's name, as the browser sent it.
            data: The file's content.

        Returns:
            The path of the stored file.

        Raises:
            ValueError: If it is too large or not an image.
        """
        if len(data) > self.max_bytes:
            raise ValueError(self.too_large)
        if not _is_image(data):
            raise ValueError(NO_IMAGE)
        # The hash separates equal names and cannot be guessed.
        folder = self.folder / hashlib.sha256(data).hexdigest()
        folder.mkdir(exist_ok=True)
        safe = re.sub(r'[^\w.\- ]', '', Path(name).name)
        # File systems count bytes, 255 at most; the end has the suffix.
        safe = safe.encode()[-200:].decode(errors='ignore').lstrip('.')
        path = folder / (safe or 'image')
        path.write_bytes(data)
        return path

    def find(self, path: Any) -> Path:
        """Return the regular file of the folder that a request names.

        Args:
            path: Any value that a request contains.

        Returns:
            The path of the file with links resolved.

        Raises:
            ValueError: If it is no such file; the message is always the
                same.
        """
        try:
            # This test is lexical, so other paths never reach the file
            # system.
            named = Path(os.path.normpath(path))
            if self.folder in named.parents:
                real = named.resolve(strict=True)
                # A link may lead out of the folder, so test the real path.
                if self.folder in real.parents and real.is_file():
                    return real
        except (OSError, RuntimeError, TypeError, ValueError):
            pass  # no path at all: a loop of links, a NUL byte, a number ...
        raise ValueError(NOT_UPLOADED)

    def read(self, path: Any) -> bytes:
        """Return the content of an upload.

        Args:
            path: Any value that a request contains.

        Raises:
            ValueError: If it is no upload or too large.
        """
        file = self.find(path)
        # The file may have been replaced since it was found: follow no link,
        # and do not block on a FIFO.
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
            return True  # decoding it later reports the size
        # Plugins raise anything for a damaged header.
        except Exception:
            return False
