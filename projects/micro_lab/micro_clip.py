"""The micro CLIP, which matches captions and digit scenes."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import open_clip
import torch
import torch.nn.functional as F
from open_clip.loss import ClipLoss
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from .dense_heads import DenseHeads, augment, normalise
from .digit_scenes import CAPTIONS
from .materials import COLOURS, DIGIT_WORDS
from .scene_pool import SIZE, Scenes

CONTEXT = 12  # tokens of a text
# Channels of the maps of strides 8, 16 and 32.
CHANNELS = (128, 256, 512)


def caption_words() -> list[str]:
    """Return every word of the captions, sorted."""
    words = set(re.sub(r'{\w+}', '', ' '.join(CAPTIONS)).split())
    return sorted(words | set(COLOURS) | set(DIGIT_WORDS))


def caption_tokenizer() -> PreTrainedTokenizerFast:
    """Build a tokenizer that knows the words of captions and no others."""
    # CLIP reads a text's embedding at its largest id, so '<end>' comes last.
    words = ['<pad>', '<unknown>', '<start>', *caption_words(), '<end>']
    ids = {word: number for number, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token='<unknown>'))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single='<start> $A <end>',
        special_tokens=[(word, ids[word]) for word in ('<start>', '<end>')],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token='<pad>',
        unk_token='<unknown>',
        bos_token='<start>',
        eos_token='<end>',
    )


CONFIG: dict[str, Any] = {
    'embed_dim': 64,
    # A list of layers, not a number, selects CLIP's ResNet.
    'vision_cfg': {'image_size': SIZE, 'layers': [2, 2, 2, 1], 'width': 16, 'head_width': 64},
    'text_cfg': {
        'context_length': CONTEXT,
        'vocab_size': len(caption_words()) + 4,
        'width': 64,
        'heads': 2,
        'layers': 2,
        # The tokenizer lies in the folder of the weights.
        'hf_tokenizer_name': 'digit-captions',
    },
}


def build_clip() -> open_clip.CLIP:
    """Build a CLIP with random weights."""
    text = {k: v for k, v in CONFIG['text_cfg'].items() if k[:2] != 'hf'}
    return open_clip.CLIP(
        CONFIG['embed_dim'],
        open_clip.CLIPVisionCfg(**CONFIG['vision_cfg']),
        open_clip.CLIPTextCfg(**text),
    )


class CLIPNet(nn.Module):
    """CLIP with its loss and dense heads, which only the training needs.

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
        """Return token ids, (N, CONTEXT)."""
        return self.tokenizer(texts, padding='max_length', max_length=CONTEXT, return_tensors='pt')[
            'input_ids'
        ]

    def features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return embedding (B, D) and map (B, C, h, w) of (B, H, W, 3)."""
        embedding, maps = self._encode(images)
        return embedding, maps[-1]

    def _encode(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        x = normalise(images, open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD)
        out = self.model.visual.forward_intermediates(x, indices=len(CHANNELS))
        return out['image_features'], out['image_intermediates']

    def forward(self, batch: Scenes) -> dict[str, Tensor]:
        """Return the losses of a batch, with random captions."""
        image, maps = self._encode(augment(batch.images))
        text = self.model.encode_text(self.tokens(_captions(batch)))
        # CLIP clips the temperature at 100 (https://arxiv.org/abs/2103.00020).
        scale = self.model.logit_scale.exp().clamp(max=100)
        contrast = self.loss(F.normalize(image, dim=1), F.normalize(text, dim=1), scale)
        return {'contrast': contrast, **self.heads(maps, batch)}


def _captions(batch: Scenes) -> list[str]:
    """A random caption of each scene's dominant digit."""
    names = list(COLOURS)
    templates = torch.randint(len(CAPTIONS), (len(batch.digits),)).tolist()
    # Digit 0 of a scene is the dominant one: (B, 5) -> (B,).
    digits = batch.digits[:, 0].tolist()
    colours = batch.colours[:, 0].tolist()
    return [
        CAPTIONS[template].format(digit=DIGIT_WORDS[digit], colour=names[c])
        for template, digit, c in zip(templates, digits, colours, strict=True)
    ]


def export_clip(model: open_clip.CLIP, folder: Path) -> None:
    """Write fp16 weights, config and tokenizer for ``local-dir:``.

    Args:
        model: The trained CLIP.
        folder: The folder to write.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # A copy, because half() changes the model in place.
    weights = copy.deepcopy(model).eval().half().state_dict()
    save_file(
        {name: value.contiguous() for name, value in weights.items()},
        folder / 'open_clip_model.safetensors',
    )
    preprocess = {
        'mean': open_clip.OPENAI_DATASET_MEAN,
        'std': open_clip.OPENAI_DATASET_STD,
        'interpolation': 'bicubic',
        'resize_mode': 'squash',
    }
    content = {'model_cfg': CONFIG, 'preprocess_cfg': preprocess}
    path = folder / 'open_clip_config.json'
    path.write_text(json.dumps(content, indent=2) + '\n')
    caption_tokenizer().save_pretrained(folder)
