"""The micro CLIP: knows which caption belongs to a scene."""

from __future__ import annotations

from typing import Any

import open_clip
import torch
import torch.nn.functional as F
from open_clip.loss import ClipLoss
from torch import Tensor, nn

from .captions import caption_tokenizer, caption_words
from .dense_heads import DenseHeads, augment, normalise
from .digit_scenes import CAPTIONS
from .materials import COLOURS, DIGIT_WORDS
from .scene_pool import SIZE, PoolBatch

CONTEXT = 12
# of the maps of strides 8, 16 and 32
CHANNELS = (128, 256, 512)
CONFIG: dict[str, Any] = {
    'embed_dim': 64,
    # a list of layers makes it CLIP's ResNet
    'vision_cfg': {
        'image_size': SIZE,
        'layers': [2, 2, 2, 1],
        'width': 16,
        'head_width': 64,
    },
    'text_cfg': {
        'context_length': CONTEXT,
        'vocab_size': len(caption_words()) + 4,
        'width': 64,
        'heads': 2,
        'layers': 2,
        # the tokenizer lies beside the weights
        'hf_tokenizer_name': 'digit-captions',
    },
}


def build_clip() -> open_clip.CLIP:
    """A random CLIP."""
    text = {k: v for k, v in CONFIG['text_cfg'].items() if k[:2] != 'hf'}
    return open_clip.CLIP(
        CONFIG['embed_dim'],
        open_clip.CLIPVisionCfg(**CONFIG['vision_cfg']),
        open_clip.CLIPTextCfg(**text),
    )


class CLIPNet(nn.Module):
    """CLIP, its loss, and dense heads that are thrown away.

    Args:
        model: The CLIP.
    """

    def __init__(self, model: open_clip.CLIP) -> None:
        super().__init__()
        self.model = model
        self.heads = DenseHeads(CHANNELS)
        self.loss = ClipLoss()
        self.tokenizer = caption_tokenizer()

    def tokens(self, texts: list[str]) -> Tensor:
        """Token ids, (N, CONTEXT)."""
        return self.tokenizer(
            texts,
            padding='max_length',
            max_length=CONTEXT,
            return_tensors='pt',
        )['input_ids']

    def look(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Embedding (B, D) and map (B, C, h, w) of images (B, H, W, 3)."""
        embedding, maps = self._look(images)
        return embedding, maps[-1]

    def _look(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        x = normalise(
            images, open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD
        )
        out = self.model.visual.forward_intermediates(x, indices=len(CHANNELS))
        return out['image_features'], out['image_intermediates']

    def forward(self, batch: PoolBatch) -> dict[str, Tensor]:
        """Losses of a batch, with a new caption for each scene."""
        image, maps = self._look(augment(batch.images))
        text = self.model.encode_text(self.tokens(captions(batch)))
        scale = self.model.logit_scale.exp().clamp(max=100)
        contrast = self.loss(
            F.normalize(image, dim=1), F.normalize(text, dim=1), scale
        )
        return {'contrast': contrast, **self.heads(maps, batch)}


def captions(batch: PoolBatch) -> list[str]:
    """A caption at random for each scene's dominant digit."""
    names = list(COLOURS)
    templates = torch.randint(len(CAPTIONS), (len(batch.digits),)).tolist()
    return [
        CAPTIONS[template].format(
            digit=DIGIT_WORDS[digit], colour=names[colour]
        )
        for template, digit, colour in zip(
            templates,
            batch.digits[:, 0].tolist(),
            batch.colours[:, 0].tolist(),
            strict=True,
        )
    ]
