"""Features of frozen teachers, stored once and read in every run."""

from .chunk import Chunk, ChunkError, Entry, Stamp, pack, thumbnail
from .feature_cache import (
    TOOL,
    FeatureCache,
    chunk_path,
    open_record,
    read_index,
    write_index,
)
from .record import (
    describe_sources,
    plain,
    read_record,
    refuse_other,
    write_record,
)
from .stored_features import StoredFeatures, stack_stored

__all__ = [
    'TOOL',
    'Chunk',
    'ChunkError',
    'Entry',
    'FeatureCache',
    'Stamp',
    'StoredFeatures',
    'chunk_path',
    'describe_sources',
    'open_record',
    'pack',
    'plain',
    'read_index',
    'read_record',
    'refuse_other',
    'stack_stored',
    'thumbnail',
    'write_index',
    'write_record',
]
