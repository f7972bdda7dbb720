"""A local web page: a student beside its untouched teachers.

:mod:`.page`, :mod:`.tabs` and :mod:`.request_guard` need Gradio, the rest does
not.
"""

from .answers import Answers
from .comparison import Comparison
from .find_source import find_source
from .inferencer_pool import InferencerPool
from .uploads import UploadFolder

__all__ = [
    'Answers',
    'Comparison',
    'InferencerPool',
    'UploadFolder',
    'find_source',
]
