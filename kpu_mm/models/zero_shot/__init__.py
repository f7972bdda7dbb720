"""The student and the teachers' own decoders, without any training."""

from .projected_backbone import ProjectedBackbone
from .teacher_encoder import TeacherEncoder
from .text_bank import TextBank
from .zero_shot_cls_head import ZeroShotClsHead
from .zero_shot_seg_head import ZeroShotSegHead

__all__ = [
    'ProjectedBackbone',
    'TeacherEncoder',
    'TextBank',
    'ZeroShotClsHead',
    'ZeroShotSegHead',
]
