"""Plain vision transformers behind one interface: sentinels and ViTs."""

from .base_vit import BaseViT, ViTTokens
from .timm_vit import TimmViT
from .transformers_vit import TransformersViT

__all__ = ['BaseViT', 'TimmViT', 'TransformersViT', 'ViTTokens', 'build_vit']


def build_vit(source: object) -> BaseViT:
    """Build a ViT of timm or transformers.

    Args:
        source: See :class:`BaseViT`.

    Returns:
        The ViT; whether it is frozen is its owner's decision.
    """
    return TimmViT(source) if TimmViT.reads(source) else TransformersViT(source)
