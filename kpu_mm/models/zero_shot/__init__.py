"""Zero-shot models: the student under the teachers' own decoders."""

from .encoders import ProjectedBackbone, TeacherEncoder
from .florence_detector import FlorenceDetector
from .grounding_decoder import Boxes, GroundingDecoder
from .text_heads import ZeroShotClsHead, ZeroShotSegHead
from .zero_shot_detector import ZeroShotDetector
