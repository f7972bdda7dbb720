"""Small images on disk."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


def encode(seed: int, size=(48, 64), **options) -> bytes:
    """Encode smooth random pixels of (height, width), JPEG by default."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize(size[::-1], Image.BICUBIC)
    file = io.BytesIO()
    image.save(file, **({'format': 'JPEG', 'quality': 95} | options))
    return file.getvalue()


def write_tar(path: Path, members: dict[str, bytes]) -> None:
    with tarfile.open(path, 'w') as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    """Keep index files out of the home folder."""
    folder = tmp_path / 'cache_home'
    monkeypatch.setenv('XDG_CACHE_HOME', str(folder))
    return folder


@pytest.fixture
def images(tmp_path) -> Path:
    """A tree of 12 images in two folders."""
    root = tmp_path / 'images'
    for i in range(12):
        path = root / f'n{i % 2}' / f'{i:02d}.JPEG'
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(i, (40 + i, 60 - i)))
    (root / 'notes.txt').write_text('not an image')
    return root
