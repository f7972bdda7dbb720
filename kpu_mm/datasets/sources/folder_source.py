"""Images below a folder."""

from __future__ import annotations

from pathlib import Path

from ...registry import DATASETS
from ..hashing import stable_hash
from .folder_scan import scanned_list
from .image_source import IMAGE_EXTENSIONS, normalised_extensions
from .index_cache import cache_folder
from .list_source import ListSource


@DATASETS.register_module()
class FolderSource(ListSource):
    """All image files in a folder and the folders below it.

    Any layout will do: ImageNet-21K's ``<wnid>/*.JPEG``, OpenImages' flat
    folders. The tree is scanned once; the next start reads the list from the
    cache after comparing the modification time of every folder.

    Args:
        root: The folder.
        extensions: Which files count, in any case. Defaults to those of
            JPEG, PNG, WebP, BMP and TIFF.
        cache_dir: Folder for the list and its index. Defaults to
            ``~/.cache/kpu_mm/index``.
        refresh: Scan again although no folder has changed, for file systems
            that do not keep modification times. Defaults to False.

    Raises:
        ValueError: If the folder is missing or holds no image.
    """

    def __init__(
        self,
        root: str,
        extensions: tuple[str, ...] = IMAGE_EXTENSIONS,
        cache_dir: str | None = None,
        refresh: bool = False,
    ) -> None:
        folder = Path(root).absolute()
        if not folder.is_dir():
            raise ValueError(
                f"Image folder '{root}' does not exist; correct `root` or "
                'put the images there.'
            )
        suffixes = normalised_extensions(tuple(extensions))
        key = stable_hash(str(folder), *suffixes)
        stem = cache_folder(cache_dir) / f'folder-{key:016x}'
        listing = scanned_list(folder, suffixes, stem, refresh)
        if listing.stat().st_size == 0:
            raise ValueError(
                f"Image folder '{root}' holds no file ending in "
                f'{", ".join(suffixes)}; correct `root` or `extensions`.'
            )
        super().__init__(str(listing), root=str(folder), cache_dir=cache_dir)
