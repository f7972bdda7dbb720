"""From a checkpoint to a folder that others can load."""

from kpu_mm.models.student import Student, read_student

from .write import write_student

__all__ = ['Student', 'read_student', 'write_student']
