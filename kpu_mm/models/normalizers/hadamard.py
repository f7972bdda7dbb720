"""Hadamard matrices: signs in rows that are orthogonal to each other."""

from __future__ import annotations

from functools import lru_cache, reduce
from itertools import product

import torch
from torch import Tensor

_SYLVESTER = torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=torch.float64)


def hadamard(order: int) -> Tensor:
    """A matrix H of 1 and -1 with H H^T = order * I.

    Kronecker products of Sylvester's matrix and those of Paley's first and
    second construction (https://doi.org/10.1002/sapm1933121311).

    Args:
        order: Rows and columns.

    Returns:
        (order, order) float64.

    Raises:
        ValueError: If these constructions do not reach the order.
    """
    found = factors(order)
    if found is None:
        raise ValueError(
            f'neither Sylvester nor Paley construct a Hadamard matrix of '
            f'order {order}, nor does a product of theirs.'
        )
    one = torch.ones(1, 1, dtype=torch.float64)
    return reduce(torch.kron, map(_construct, found), one)


@lru_cache
def factors(order: int) -> tuple[int, ...] | None:
    """Orders of the constructed matrices whose product has an order.

    Args:
        order: The order.

    Returns:
        The factors, as many twos as possible; None if there are none.
    """
    if order == 1:
        return ()
    for first in range(2, order + 1):
        if order % first == 0 and (first == 2 or _paley(first)):
            rest = factors(order // first)
            if rest is not None:
                return (first, *rest)
    return None


def _paley(order: int) -> tuple[int, int, int] | None:
    """Construction and field, (1 or 2, p, k) for the field of p^k."""
    for number, q in ((1, order - 1), (2, order // 2 - 1)):
        field = _prime_power(q)
        residue = 3 if number == 1 else 1
        if field is not None and order == number * (q + 1):
            p, k = field
            if q % 4 == residue:
                return number, p, k
    return None


def _construct(order: int) -> Tensor:
    if order == 2:
        return _SYLVESTER
    found = _paley(order)
    assert found is not None
    number, p, k = found
    q = p**k
    bordered = torch.zeros(q + 1, q + 1, dtype=torch.float64)
    bordered[1:, 1:] = _jacobsthal(p, k)
    bordered[0, 1:] = 1
    identity = torch.eye(q + 1, dtype=torch.float64)
    if number == 1:  # bordered is skew: its transpose is its negative
        bordered[1:, 0] = -1
        return identity + bordered
    bordered[1:, 0] = 1
    turned = torch.tensor([[1.0, -1.0], [-1.0, -1.0]], dtype=torch.float64)
    return torch.kron(bordered, _SYLVESTER) + torch.kron(identity, turned)


def _jacobsthal(p: int, k: int) -> Tensor:
    """1 where the difference of two field elements is a square, else -1.

    0 where they are the same. An element is a polynomial over the integers
    modulo p, of degree below k; its coefficients are the digits of its
    number in base p.
    """
    q, base = p**k, p ** torch.arange(k)
    elements = torch.arange(q)[:, None] // base % p  # (q, k)
    character = torch.full((q,), -1, dtype=torch.float64)
    character[_squares(elements, p)] = 1
    character[0] = 0
    differences = torch.zeros(q, q, dtype=torch.long)
    for digits, place in zip(elements.T, base.tolist(), strict=True):
        differences += (digits[:, None] - digits) % p * place
    return character[differences]


def _squares(elements: Tensor, p: int) -> Tensor:
    """The numbers of all squares, modulo an irreducible polynomial.

    Modulo any other there are zero divisors a b = 0, so that (a + b) / 2
    and (a - b) / 2 have the same square: only a field has (q + 1) / 2
    squares, and the first polynomial with so many is taken.
    """
    q, k = elements.shape
    powers = torch.zeros(q, 2 * k - 1, dtype=torch.long)
    for i, j in product(range(k), repeat=2):
        powers[:, i + j] += elements[:, i] * elements[:, j]
    powers %= p
    for polynomial in elements:  # x^k plus these lower terms
        rest = powers.clone()
        for top in range(2 * k - 2, k - 1, -1):
            rest[:, top - k : top] -= rest[:, top, None] * polynomial
            rest %= p
        found = (rest[:, :k] * p ** torch.arange(k)).sum(1).unique()
        if len(found) == (q + 1) // 2:
            return found
    raise AssertionError(f'no irreducible polynomial over {p} of degree {k}')


def _prime_power(q: int) -> tuple[int, int] | None:
    """The prime p and k of q = p^k, if q is such a number."""
    if q < 2:
        return None
    p = next((n for n in range(2, int(q**0.5) + 1) if q % n == 0), q)
    k = 1
    while p**k < q:
        k += 1
    return (p, k) if p**k == q else None
