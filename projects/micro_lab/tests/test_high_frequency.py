import pytest
import torch

from projects.micro_lab.high_frequency import detail


def test_of_alternating_cells_all_is_detail():
    board = (torch.arange(8)[:, None] + torch.arange(8)) % 2
    maps = board.float().expand(2, 3, 8, 8)
    assert detail(maps) == pytest.approx(1.0)


def test_of_a_slope_little_is():
    """A plane is lost at the rim alone, where enlarging cannot follow."""
    slope = torch.arange(32.0).expand(1, 1, 32, 32)
    # a cell at each end of a row is half a cell off
    expected = 2 * 0.5**2 / ((torch.arange(32.0) - 15.5) ** 2).sum()
    assert detail(slope) == pytest.approx(float(expected), rel=1e-4)


def test_ignores_scale_and_offset():
    maps = torch.randn(2, 3, 8, 8)
    assert detail(5 * maps + 3) == pytest.approx(detail(maps), rel=1e-4)
