"""Frozen teachers: raw images in, features out."""

from .base_teacher import BaseTeacher
from .dino_teacher import DINOTeacher
from .teacher_bank import TeacherBank

__all__ = ['BaseTeacher', 'DINOTeacher', 'TeacherBank']
