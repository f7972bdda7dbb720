import torch

from kpu_mm.engine.model_wrappers import Unwrapped


def test_unwrapped():
    model = torch.nn.Linear(1, 1)
    assert Unwrapped(module=model) is model
