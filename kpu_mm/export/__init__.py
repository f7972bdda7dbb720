"""From a checkpoint to a folder that others can load."""

from kpu_mm.models.student import Student, read_student

from .program import export_program
from .write import write_student

__all__ = ['Student', 'export_program', 'read_student', 'write_student']
