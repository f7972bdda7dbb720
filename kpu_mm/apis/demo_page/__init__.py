"""A local web page: a student beside its untouched teachers.

:mod:`.page` and :mod:`.tabs` need Gradio, the rest does not.
"""

from .answers import Answers
from .comparison import Comparison
from .find_source import find_source
from .inferencer_pool import InferencerPool

__all__ = ['Answers', 'Comparison', 'InferencerPool', 'find_source']
