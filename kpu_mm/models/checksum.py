"""Weights told apart, whatever file they came from."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import torch
from torch import Tensor


@torch.no_grad()
def checksum(weights: Iterable[Tensor]) -> str:
    """SHA-256 over float32 values, whatever their order.

    Names and order differ between versions of transformers, so the digests
    of the tensors are sorted.

    Args:
        weights: The tensors.
    """
    digests = sorted(
        hashlib.sha256(w.float().contiguous().cpu().numpy().tobytes()).digest()
        for w in weights
    )
    return hashlib.sha256(b''.join(digests)).hexdigest()
