"""Frozen teachers: raw images in, features out."""

from .base_teacher import BaseTeacher
from .cached_teacher import CachedTeacher, describe_teacher
from .clip_teacher import CLIPTeacher
from .dino_teacher import DINOTeacher
from .grounding_dino_teacher import GroundingDINOTeacher, InjectedMaps
from .mm_teacher import MMTeacher
from .mosaic_teacher import MosaicTeacher
from .teacher_bank import TeacherBank
from .timm_teacher import TimmTeacher
from .transformers_teacher import TransformersTeacher
from .unpadded_teacher import UnpaddedTeacher, each_alone

__all__ = [
    'BaseTeacher',
    'CLIPTeacher',
    'CachedTeacher',
    'DINOTeacher',
    'GroundingDINOTeacher',
    'InjectedMaps',
    'MMTeacher',
    'MosaicTeacher',
    'TeacherBank',
    'TimmTeacher',
    'TransformersTeacher',
    'UnpaddedTeacher',
    'describe_teacher',
    'each_alone',
]
