"""Several tasks on one backbone."""

from .backbone_view import BackboneView
from .multi_task_model import MultiTaskModel

__all__ = ['BackboneView', 'MultiTaskModel']
