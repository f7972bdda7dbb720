"""A local web page: a student beside its untouched teachers.

:mod:`.page` and :mod:`.tabs` need Gradio, the rest does not.
"""

from .answers import Answers
from .comparison import Comparison
from .inferencer_pool import InferencerPool, find_source

__all__ = ['Answers', 'Comparison', 'InferencerPool', 'find_source']
