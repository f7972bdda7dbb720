"""Where encoded images come from."""

from .folder_source import FolderSource
from .image_source import IMAGE_EXTENSIONS, ImageSource
from .list_source import ListSource
from .parquet_source import ParquetSource
from .tar_source import TarSource

__all__ = [
    'IMAGE_EXTENSIONS',
    'FolderSource',
    'ImageSource',
    'ListSource',
    'ParquetSource',
    'TarSource',
]
