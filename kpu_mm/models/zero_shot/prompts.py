"""Class names as prompts that a GroundingDINO reads whole."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers.models.grounding_dino.modeling_grounding_dino import (
    build_label_maps,
)

from .class_names import check_text


class Prompt(NamedTuple):
    """Some phrases as one text.

    Args:
        input_ids: The tokens, (1, L).
        tokens_of: For each phrase the share that each token has in it, rows
            that sum to 1, (K, T); T is the width of the model's logits.
    """

    input_ids: Tensor
    tokens_of: Tensor


def split_prompts(
    names: Sequence[str], tokenizer: Any, limit: int, width: int
) -> list[Prompt]:
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
        ValueError: If there is no name, one that says nothing, one that
            would be read as two, or one over the limit.
    """
    if not names:
        raise ValueError('the class list is empty; name at least one class.')
    groups: list[list[str]] = []
    room = 0
    for name in names:
        check_text(name)
        name = name.strip().lower()
        # with the full stop behind it
        cost = len(tokenizer(name, add_special_tokens=False).input_ids) + 1
        if cost > limit - 2:
            raise ValueError(
                f'the class name {name[:60]!r} has {cost - 1} tokens; the '
                f'text encoder takes {limit - 3}. Shorten it.'
            )
        if not groups or cost > room:
            groups.append([])
            room = limit - 2  # but the first and the last token
        groups[-1].append(name)
        room -= cost
    return [_write(group, tokenizer, width) for group in groups]


def read_text(text: str, tokenizer: Any, limit: int) -> Tensor:
    """Tokens of a free text.

    Args:
        text: The text; a full stop is added if it has none.
        tokenizer: GroundingDINO's.
        limit: Most tokens that the text may have.

    Returns:
        (1, L).

    Raises:
        ValueError: If it says nothing, or is over the limit.
    """
    check_text(text)
    text = text.lower().strip()
    text = text if text.endswith('.') else text + '.'
    tokens: Tensor = tokenizer(text, return_tensors='pt').input_ids
    if tokens.shape[1] > limit:
        raise ValueError(
            f'the text {text[:60]!r}... has {tokens.shape[1]} tokens; the '
            f'text encoder takes {limit}. Shorten it, or pass a list of '
            'phrases, which is split.'
        )
    return tokens


def _write(names: Sequence[str], tokenizer: Any, width: int) -> Prompt:
    """As the processor of transformers writes a list of labels."""
    text = '. '.join(names) + '.'
    tokens = tokenizer(text, return_tensors='pt').input_ids
    logits: Any = torch.empty(1, 1, width)  # only its width counts
    (phrases,) = build_label_maps(logits, tokens)
    if len(phrases) != len(names):
        stops = [name for name in names if set(name) & set('.?')]
        raise ValueError(
            f"'.' and '?' end a phrase for GroundingDINO; write {stops} "
            'without them.'
        )
    shares = phrases.float()
    return Prompt(tokens, shares / shares.sum(1, keepdim=True))
