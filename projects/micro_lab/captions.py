"""Tokenizers that know the words of digit scenes and no others."""

from __future__ import annotations

import re
from pathlib import Path

from tokenizers import (
    Tokenizer,
    models,
    normalizers,
    pre_tokenizers,
    processors,
)
from transformers import BertTokenizerFast, PreTrainedTokenizerFast

from .digit_scenes import CAPTIONS
from .materials import COLOURS, DIGIT_WORDS

# GroundingDINO knows these by the ids of BERT's vocabulary.
_BERT_IDS = {'[PAD]': 0, '[UNK]': 100, '[CLS]': 101, '[SEP]': 102}
_BERT_IDS |= {'[MASK]': 103, '.': 1012, '?': 1029}
BERT_WORDS = 1030
FIRST_DIGIT = 200


def detection_tokenizer(folder: Path) -> BertTokenizerFast:
    """A BERT tokenizer of digit words, with BERT's own special ids.

    Args:
        folder: Where its vocabulary is written.
    """
    words = [f'[unused{i}]' for i in range(BERT_WORDS)]
    for word, number in _BERT_IDS.items():
        words[number] = word
    words[FIRST_DIGIT : FIRST_DIGIT + 10] = DIGIT_WORDS
    path = folder / 'vocab.txt'
    path.write_text('\n'.join(words))
    return BertTokenizerFast(str(path))


def caption_words() -> list[str]:
    """Every word of the captions."""
    text = ' '.join(CAPTIONS)
    words = set(re.sub(r'{\w+}', '', text).split())
    return sorted(words | set(COLOURS) | set(DIGIT_WORDS))


def caption_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer of captions; its last id ends a text, as CLIP wants."""
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
