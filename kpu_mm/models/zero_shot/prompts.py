"""Class names, templates and phrases as the text encoders take them."""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import open_clip
import torch
from torch import Tensor
from transformers.models.grounding_dino.modeling_grounding_dino import (
    SPECIAL_TOKENS,
    build_label_maps,
)

# A text of these words alone names no object. The list is our own.
_STOP_WORDS = re.compile(
    'an?|the|this|that|these|those|its?|he|she|they|them|we|you|i|and|or|but|nor|not?|of|in|on|at|by|for|from|to|with|without|into|onto|over|under|as|is|are|was|were|be|been|there|here|some|any|all'
)
_EMPTY = 'the class list is empty; name at least one class.'


def find_classes(classes: str | Sequence[str]) -> tuple[str, ...]:
    """Return a list of class names, or that of a data set.

    Args:
        classes: Names; or 'imagenet' for open_clip's names of ImageNet's
            classes; or a data set of MMSegmentation, such as 'ade20k'.

    Returns:
        The names without surrounding white space.

    Raises:
        ValueError: If there is no such data set, no name, or a name without
            a meaning.
    """
    if classes == 'imagenet':
        classes = open_clip.IMAGENET_CLASSNAMES
    elif isinstance(classes, str):
        try:
            from mmseg.utils import get_classes

            classes = get_classes(classes)
        except (ImportError, ValueError) as error:
            raise ValueError(
                f"there is no class list '{classes}': pass a list of names, 'imagenet', or (with "
                "MMSegmentation installed) one of its data sets such as 'ade20k'."
            ) from error
    if not classes:
        raise ValueError(_EMPTY)
    for name in classes:
        check_text(name)
    names = tuple(name.strip() for name in classes)
    # A warning, as lists in common use have some: ImageNet's has two.
    for name, count in Counter(names).items():
        if count > 1 and names != tuple(open_clip.IMAGENET_CLASSNAMES):
            warnings.warn(f'{count} classes are named {name!r} and share its score.', stacklevel=2)
    return names


def find_templates(templates: Sequence[str] | None) -> tuple[str, ...]:
    """Check templates, or return those of open_clip.

    Args:
        templates: Prompts with '{}' or '{0}' in each place of the name;
            None for the 80 templates of open_clip.

    Returns:
        The templates, with '{}' in the place of the name.

    Raises:
        ValueError: If there is no template, or one without '{}' or with
            other braces.
    """
    if templates is None:
        # open_clip has functions from a name to a prompt.
        return tuple(t('{}') for t in open_clip.OPENAI_IMAGENET_TEMPLATES)
    if isinstance(templates, str) or not templates:
        raise ValueError(
            f'templates={templates!r}: pass a list with at least one text '
            "such as 'a photo of a {}.'."
        )
    for template in templates:
        rest = re.sub(r'\{0?\}', '', str(template))
        if rest == template or not isinstance(template, str) or set('{}') & set(rest):
            raise ValueError(
                f"the template {template!r} must have '{{}}' in the place of the class name, and "
                'no other braces.'
            )
    return tuple(template.replace('{0}', '{}') for template in templates)


def check_text(text: str) -> None:
    """Raise unless a text has a word with a meaning.

    Args:
        text: A class name or a phrase.

    Raises:
        ValueError: If it has no word, or stop words only.
    """
    words = re.findall(r'\w+', text.lower()) if isinstance(text, str) else []
    # This is true for no words, too.
    if all(map(_STOP_WORDS.fullmatch, words)):
        raise ValueError(
            f'{text!r} names nothing: write at least one word besides '
            'articles, prepositions and punctuation.'
        )


def check_known(text: str, tokenizer: Any) -> None:
    """Raise if a tokenizer knows no word of a text; warn if it misses some.

    Args:
        text: A class name or a phrase.
        tokenizer: Of transformers. One whose token for unknown text also
            ends or pads texts, as CLIP's, knows every byte.

    Raises:
        ValueError: If each word with a meaning is unknown.
    """
    unknown = tokenizer.unk_token
    if unknown in (None, tokenizer.eos_token, tokenizer.pad_token, tokenizer.bos_token):
        return
    pieces = {word: tokenizer.tokenize(word) for word in text.split()}
    missing = [word for word, parts in pieces.items() if unknown in parts or not parts]
    known = [
        word
        for word, parts in pieces.items()
        if not _STOP_WORDS.fullmatch(re.sub(r'\W', '', word.lower()))
        and any(part != unknown and re.search(r'\w', part) for part in parts)
    ]
    if missing and not known:
        raise ValueError(
            f'the text encoder knows no word of {text!r}; write it in other words, in a language '
            'that the model was trained in.'
        )
    if missing:
        warnings.warn(f'the text encoder does not know {missing} in {text!r}.', stacklevel=2)


def tokenize(tokenizer: Any, texts: Sequence[str]) -> Tensor:
    """Tokenize prompts for a CLIP, of which nothing may be cut off.

    Args:
        tokenizer: open_clip's.
        texts: The prompts.

    Returns:
        (N, context length).

    Raises:
        ValueError: If a prompt is longer than the text tower takes.
    """
    limit: int = tokenizer.context_length
    tokens: Tensor = tokenizer(texts)
    # With room for one token more, a prompt that fits has the same tokens
    # and ends in padding. Some tokenizers pad with the end-of-text token.
    longer = tokenizer(texts, limit + 1)
    padding = tokenizer(['a'], limit + 1)[0, -1]
    cut = (longer[:, :-1] != tokens).any(1) | (longer[:, -1] != padding)
    if cut.any():
        text = texts[int(cut.int().argmax())]
        text = text if len(text) <= 60 else f'{text[:57]}...'
        raise ValueError(
            f'the prompt {text!r} has more tokens than the text tower takes, '
            f'{limit}; shorten the class name or the template.'
        )
    return tokens


class Prompt(NamedTuple):
    """Some phrases as one text for a GroundingDINO.

    Args:
        input_ids: The tokens, (1, L).
        token_shares: For each phrase the weight of each token in its mean,
            rows that sum to 1, (K, T); T is the width of the model's logits.
    """

    input_ids: Tensor
    token_shares: Tensor


def split_prompts(names: Sequence[str], tokenizer: Any, limit: int, width: int) -> list[Prompt]:
    """Write class names into as few prompts as their order allows.

    Args:
        names: Class names.
        tokenizer: GroundingDINO's.
        limit: Most tokens that a prompt may have.
        width: Width of the model's logits.

    Returns:
        The prompts; their phrases, one prompt after the other, are the
        names.

    Raises:
        ValueError: If there is no name, one without a meaning or a known
            word, one that the model would read as two, or one over the limit.
    """
    if not names:
        raise ValueError(_EMPTY)
    # Greedy, in the given order, so that labels are the names' indices.
    groups: list[list[str]] = []
    room = 0
    for name in names:
        check_text(name)
        name = name.strip().lower()
        ids = tokenizer(name, add_special_tokens=False).input_ids
        if set(ids) & set(SPECIAL_TOKENS):
            raise ValueError(
                f"'.' and '?' end a phrase for GroundingDINO; write {name!r} without them."
            )
        check_known(name, tokenizer)
        # A full stop, one token, ends each phrase.
        cost = len(ids) + 1
        # [CLS] and [SEP] take two tokens of each prompt.
        if cost > limit - 2:
            raise ValueError(
                f'the class name {name[:60]!r} has {cost - 1} tokens; the '
                f'text encoder takes {limit - 3}. Shorten it.'
            )
        if cost > room:
            groups.append([])
            room = limit - 2
        groups[-1].append(name)
        room -= cost
    return [_write(group, tokenizer, width) for group in groups]


def _write(names: Sequence[str], tokenizer: Any, width: int) -> Prompt:
    """Join names as the processor of transformers does."""
    tokens = tokenizer('. '.join(names) + '.', return_tensors='pt').input_ids
    # build_label_maps reads nothing but the width of its logits.
    logits: Any = torch.empty(1, 1, width)
    (phrases,) = build_label_maps(logits, tokens)
    # (K, T) bool -> weights of a mean over each phrase's tokens
    shares = phrases.float()
    return Prompt(tokens, shares / shares.sum(1, keepdim=True))


def read_text(text: str, tokenizer: Any, limit: int) -> Tensor:
    """Return the tokens of a free text for a GroundingDINO.

    Args:
        text: The text; a full stop is added if it has none.
        tokenizer: GroundingDINO's.
        limit: Most tokens that the text may have.

    Returns:
        (1, L).

    Raises:
        ValueError: If the text names nothing, has a phrase without a known
            word, or is over the limit.
    """
    check_text(text)
    for phrase in re.split('[.?]', text.lower()):
        check_known(phrase.strip(), tokenizer)
    # GroundingDINO was trained with lower case and a full stop at the end.
    text = text.lower().strip().removesuffix('.') + '.'
    tokens: Tensor = tokenizer(text, return_tensors='pt').input_ids
    if tokens.shape[1] > limit:
        raise ValueError(
            f'the text {text[:60]!r}... has {tokens.shape[1]} tokens; the text encoder takes '
            f'{limit}. Shorten it, or pass a list of phrases, which is split.'
        )
    return tokens
