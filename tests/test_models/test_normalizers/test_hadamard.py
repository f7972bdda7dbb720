import pytest
import torch

from kpu_mm.models.normalizers.hadamard import factors, hadamard

# Below 1000 all multiples of 4 but these, as the literature on Paley's
# constructions lists them.
NOT_CONSTRUCTED = {
    *(92, 116, 156, 172, 184, 188, 232, 236, 260, 268, 292, 324, 356, 372),
    *(376, 404, 412, 428, 436, 452, 472, 476, 508, 520, 532, 536, 584, 596),
    *(604, 612, 652, 668, 712, 716, 732, 756, 764, 772, 808, 836, 852, 856),
    *(872, 876, 892, 904, 932, 940, 944, 952, 956, 964, 980, 988, 996),
}


@pytest.mark.parametrize(
    'order',
    [1, 2, 4, 12, 20, 28, 36, 192, 256, 384, 512, 768, 1024, 1152, 1280, 1408],
)
def test_rows_are_orthogonal(order):
    h = hadamard(order)
    assert h.shape == (order, order)
    assert torch.equal(h.abs(), torch.ones_like(h))
    assert torch.equal(h @ h.T, order * torch.eye(order, dtype=h.dtype))


def test_small_ones_by_hand():
    assert hadamard(2).tolist() == [[1, 1], [1, -1]]
    # the squares modulo 11 are 1, 3, 4, 5 and 9
    first = [1 if d in (0, 1, 3, 4, 5, 9) else -1 for d in range(11)]
    rows = hadamard(12)
    assert rows[0].tolist() == [1] * 12
    # element 0 against 0, 1, ...: differences 0, 10, 9, ...
    assert rows[1].tolist() == [-1, first[0], *first[:0:-1]]


# 3^2, 5^2, 3^3, 7^2 and 3^4: fields that are not the integers modulo a prime
@pytest.mark.parametrize(('order', 'q'), [(20, 9), (52, 25), (100, 49)])
def test_fields_of_prime_powers(order, q):
    from kpu_mm.models.normalizers.hadamard import _jacobsthal

    p = int(q**0.5)
    found = _jacobsthal(p, 2)
    # Q Q^T = q I - J, Q J = 0: what makes Paley's constructions work
    expected = q * torch.eye(q) - torch.ones(q, q)
    assert torch.equal(found @ found.T, expected.double())
    assert found.sum(1).eq(0).all()
    assert factors(order) is not None


def test_which_orders():
    known = {n for n in range(4, 1000, 4) if factors(n) is not None}
    assert known == set(range(4, 1000, 4)) - NOT_CONSTRUCTED
    assert all(factors(n) is None for n in range(3, 300) if n % 4)
    with pytest.raises(ValueError, match='matrix of order 92'):
        hadamard(92)


@pytest.mark.slow
def test_all_orders_up_to_2048():
    torch.manual_seed(0)
    orders = [n for n in range(1, 2049) if factors(n) is not None]
    assert len(orders) > 350
    for order in orders:
        h = hadamard(order)
        assert h.abs().eq(1).all()
        # whole numbers, exact in float64: what is wrong in H H^T shows
        probe = torch.randint(-999, 1000, (order, 4)).double()
        assert torch.equal(h @ (h.T @ probe), order * probe), order
