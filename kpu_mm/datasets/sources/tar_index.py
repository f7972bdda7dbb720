"""Where each file lies inside a tar shard."""

from __future__ import annotations

import tarfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .index_cache import atomic_file


class TarIndex(NamedTuple):
    """The regular files of one tar shard, in their order.

    Args:
        offsets: First byte of each file's content, (N,) int64.
        sizes: Bytes of content, (N,) int64.
        names: The names inside the shard, N lines of UTF-8 in one (M,)
            uint8.
        shard_size: Bytes of the whole shard, () int64.
    """

    offsets: np.ndarray
    sizes: np.ndarray
    names: np.ndarray
    shard_size: np.ndarray

    def name_list(self) -> list[str]:
        """Return the names inside this one shard."""
        text = self.names.tobytes().decode('utf-8', 'surrogateescape')
        return text.split('\n')[:-1]


def build_tar_index(shard: Path) -> TarIndex:
    """Read the headers of a tar shard.

    Args:
        shard: An uncompressed tar file.

    Raises:
        ValueError: If it is not one, or is cut short.
    """
    size = shard.stat().st_size
    try:
        with tarfile.open(shard, 'r:') as tar:
            members = [m for m in tar if m.isreg() and not m.sparse]
    except (tarfile.TarError, OSError) as error:
        raise ValueError(
            f"Shard '{shard}' is not a complete uncompressed tar file "
            f'({error}); copy or make it again.'
        ) from error
    if any(m.offset_data + m.size > size for m in members):
        raise ValueError(
            f"Shard '{shard}' is cut short at {size} bytes; copy or make it "
            'again.'
        )
    names = ''.join(f'{m.name}\n' for m in members)
    text = names.encode('utf-8', 'surrogateescape')
    return TarIndex(
        np.array([m.offset_data for m in members], np.int64),
        np.array([m.size for m in members], np.int64),
        np.frombuffer(text, np.uint8),
        np.array(size, np.int64),
    )


def index_path(shard: Path, index_dir: Path | None) -> Path:
    """Return where the index of a shard is kept.

    Args:
        shard: The tar file.
        index_dir: Folder for indices; ``None`` is beside the shard.
    """
    folder = shard.parent if index_dir is None else index_dir
    return folder / f'{shard.name}.idx.npz'


def save_tar_index(index: TarIndex, path: Path) -> None:
    """Write an index file, whole or not at all."""
    with atomic_file(path) as file:
        np.savez(file, **index._asdict())


def read_tar_index(path: Path) -> TarIndex:
    """Read an index file.

    Args:
        path: The file.

    Raises:
        ValueError: If it is missing or damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            return TarIndex(*(file[name] for name in TarIndex._fields))
    except Exception as error:
        raise ValueError(
            f"Index '{path}' cannot be read ({error}); {_cure(path)}"
        ) from error


def load_tar_index(shard: Path, path: Path) -> TarIndex:
    """Read an index file and check that it describes the shard.

    Args:
        shard: The tar file.
        path: Its index.

    Raises:
        ValueError: If the index is damaged, older than the shard or made
            from a shard of another size.
    """
    index, cure = read_tar_index(path), _cure(path)
    status = shard.stat()
    if int(index.shard_size) != status.st_size:
        raise ValueError(
            f"Index '{path}' is stale: it was made from a shard of "
            f"{int(index.shard_size)} bytes and '{shard}' has "
            f'{status.st_size}; {cure}'
        )
    if path.stat().st_mtime_ns < status.st_mtime_ns:
        raise ValueError(
            f"Index '{path}' is stale: it is older than '{shard}'; {cure}"
        )
    return index


def _cure(path: Path) -> str:
    """Say what to do about a bad index."""
    return f"delete '{path}' so that it is built again."
