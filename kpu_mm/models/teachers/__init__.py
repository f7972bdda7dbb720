"""Frozen teachers: raw images in, features out."""

from .base_teacher import BaseTeacher, TeacherBank
from .clip_teacher import CLIPTeacher
from .dino_teacher import DINOTeacher
from .grounding_dino_teacher import GroundingDINOTeacher
from .mm_teacher import MMTeacher
from .mosaic_teacher import MosaicTeacher
from .timm_teacher import TimmTeacher
from .transformers_teacher import TransformersTeacher
