import pytest
import torch


@pytest.fixture(autouse=True)
def seed():
    """Two scores that rounding puts in another order would end a test."""
    torch.manual_seed(0)
