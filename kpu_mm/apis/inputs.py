"""What an Inferencer is called with, as a list of things to read."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import mmcv

IMAGE_SUFFIXES = (
    '.jpg',
    '.jpeg',
    '.png',
    '.bmp',
    '.webp',
    '.tif',
    '.tiff',
    '.ppm',
    '.pgm',
)
VIDEO_SUFFIXES = ('.mp4', '.avi', '.mov', '.mkv', '.webm', '.m4v', '.mpg')


def list_inputs(inputs: Any) -> list[Any]:
    """Spell out folders, wildcards and nested lists.

    Args:
        inputs: A path, URL, folder, wildcard, image in memory, or a list of
            these.

    Returns:
        Paths and URLs as str, sorted within a folder or wildcard, and
        images in memory.

    Raises:
        FileNotFoundError: If a file or folder is missing, or a folder or
            wildcard has no image.
        ValueError: If there is nothing.
    """
    if isinstance(inputs, (str, os.PathLike)):
        return _list_files(os.fspath(inputs))
    if not isinstance(inputs, (list, tuple)):
        return [inputs]
    found = [item for part in inputs for item in list_inputs(part)]
    if not found:
        raise ValueError('the list of inputs is empty; pass an image.')
    return found


def is_url(text: Any) -> bool:
    """Whether this is an address that a file can be fetched from.

    Args:
        text: A path, an address or an image.
    """
    return isinstance(text, str) and text.startswith(('http://', 'https://'))


def is_video(item: Any) -> bool:
    """Whether this is the path of a video, by its suffix.

    Args:
        item: A path, an address or an image.

    Raises:
        ValueError: If it is the address of a video.
    """
    if not isinstance(item, str):
        return False
    path = urlsplit(item).path if is_url(item) else item
    if not path.lower().endswith(VIDEO_SUFFIXES):
        return False
    if is_url(item):
        raise ValueError(
            f"'{item}' is a video: download it and pass the file's path."
        )
    return True


def count_images(items: Sequence[Any], video_stride: int = 1) -> int:
    """How many images there are, as far as videos tell.

    Args:
        items: What :func:`list_inputs` gave.
        video_stride: Every how many frames of a video one is taken.
            Defaults to 1.
    """
    return sum(
        -(-mmcv.VideoReader(item).frame_cnt // video_stride)
        if is_video(item)
        else 1
        for item in items
    )


def _list_files(text: str) -> list[str]:
    if is_url(text):
        return [text]
    path = Path(text).expanduser()
    if path.is_file():
        return [str(path)]
    if path.is_dir():
        files = [
            str(file)
            for file in sorted(path.iterdir())
            if file.name.lower().endswith(IMAGE_SUFFIXES + VIDEO_SUFFIXES)
        ]
        if not files:
            raise FileNotFoundError(
                f"the folder '{text}' has no image; their names end in "
                f'{", ".join(IMAGE_SUFFIXES)}.'
            )
        return files
    if glob.has_magic(text):
        matches = glob.glob(str(path), recursive=True)
        files = sorted(match for match in matches if Path(match).is_file())
        if files:
            return files
        raise FileNotFoundError(f"no file matches '{text}'; correct it.")
    raise FileNotFoundError(
        f"'{text}' does not exist: pass an image, a folder, a wildcard, a "
        'video or an address.'
    )
