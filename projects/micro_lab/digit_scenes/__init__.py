"""Digit scenes: small pictures with every kind of label, made on the spot."""

from .materials import COLOURS, DIGIT_WORDS, Split, materials
from .scene import CAPTIONS, MAX_DIGITS, Scene, scene, tight_box
from .source import DigitSceneSource
from .write import write_digit_scenes

__all__ = [
    'CAPTIONS',
    'COLOURS',
    'DIGIT_WORDS',
    'MAX_DIGITS',
    'DigitSceneSource',
    'Scene',
    'Split',
    'materials',
    'scene',
    'tight_box',
    'write_digit_scenes',
]
