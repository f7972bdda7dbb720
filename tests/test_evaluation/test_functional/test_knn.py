import math

import pytest
import torch
import torch.nn.functional as F

from kpu_mm.evaluation import knn_vote


def vote_by_hand(query, bank, labels, num_classes, k, temperature):
    """DINO's equations, one neighbour at a time."""
    similarity = [
        sum(a * b for a, b in zip(query, feature, strict=True))
        for feature in bank
    ]
    nearest = sorted(range(len(bank)), key=lambda i: -similarity[i])[:k]
    votes = [0.0] * num_classes
    for i in nearest:
        votes[labels[i]] += math.exp(similarity[i] / temperature)
    return [v / sum(votes) for v in votes]


@pytest.mark.parametrize(
    ('k', 'chunk_size'), [(1, 65536), (5, 7), (20, 7), (20, 65536), (50, 11)]
)
def test_agrees_with_a_loop(k, chunk_size):
    generator = torch.Generator().manual_seed(k)
    bank = F.normalize(torch.randn(40, 8, generator=generator), dim=1)
    queries = F.normalize(torch.randn(6, 8, generator=generator), dim=1)
    labels = torch.randint(0, 4, (40,), generator=generator)
    shares = knn_vote(queries, bank, labels, 5, k, 0.2, chunk_size)
    expected = [
        vote_by_hand(q, bank.tolist(), labels.tolist(), 5, k, 0.2)
        for q in queries.tolist()
    ]
    torch.testing.assert_close(
        shares, torch.tensor(expected), rtol=1e-4, atol=1e-6
    )
    assert shares[:, 4].eq(0).all()  # nobody in the bank has this class


def test_small_temperature_does_not_overflow():
    bank = F.normalize(torch.randn(30, 4), dim=1)
    labels = torch.arange(30)
    shares = knn_vote(bank, bank, labels, 30, temperature=1e-3)
    assert torch.equal(shares.argmax(1), labels)
    torch.testing.assert_close(shares.sum(1), torch.ones(30))
