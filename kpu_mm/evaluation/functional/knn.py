"""k nearest neighbours with DINO's weighted vote."""

from __future__ import annotations

import torch
from torch import Tensor


def knn_vote(
    queries: Tensor,
    bank: Tensor,
    labels: Tensor,
    num_classes: int,
    k: int = 20,
    temperature: float = 0.07,
    chunk_size: int = 65536,
) -> Tensor:
    """Let the k most similar features vote for the class of each query.

    As DINO evaluates (https://arxiv.org/abs/2104.14294, section 4.1): each of
    the k neighbours by cosine similarity s votes for its class with weight
    exp(s / temperature). Similarities are held for ``chunk_size`` features of
    the bank at a time.

    Args:
        queries: L2-normalised features, (B, D).
        bank: L2-normalised features of known classes, (N, D).
        labels: Their classes, (N,) int64.
        num_classes: Number of classes.
        k: Number of neighbours, all features if there are fewer. Defaults to
            20.
        temperature: Softness of the weights. Defaults to 0.07.
        chunk_size: Features compared at a time. Defaults to 65536.

    Returns:
        Share of each class in the votes, (B, num_classes), rows sum to 1.
    """
    values = queries.new_empty(len(queries), 0)
    indices = labels.new_empty(len(queries), 0)
    for start in range(0, len(bank), chunk_size):
        similarity = queries @ bank[start : start + chunk_size].T  # (B, M)
        found = similarity.topk(min(k, similarity.shape[1]), dim=1)
        values = torch.cat([values, found.values], 1)
        indices = torch.cat([indices, found.indices + start], 1)
        best = values.topk(min(k, values.shape[1]), dim=1)
        values, indices = best.values, indices.gather(1, best.indices)
    # the shares are those of exp(s / T), without its overflow
    weights = (values / temperature).softmax(1)  # (B, k)
    votes = weights.new_zeros(len(queries), num_classes)
    return votes.scatter_add_(1, labels[indices], weights)
