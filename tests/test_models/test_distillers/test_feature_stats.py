import numpy as np
import torch

from kpu_mm.models.distillers.feature_stats import feature_std, std_ratio
from kpu_mm.structures import Features


def test_std_over_maps_without_padding():
    torch.manual_seed(0)
    maps = (3 * torch.randn(2, 4, 5, 6) + 1, torch.randn(2, 8, 2, 3))
    masks = (torch.rand(2, 1, 5, 6) > 0.4, torch.rand(2, 1, 2, 3) > 0.2)
    values = np.concatenate(
        [
            m[mask.expand_as(m)].numpy()
            for m, mask in zip(maps, masks, strict=True)
        ]
    )
    torch.testing.assert_close(
        feature_std(Features(None, maps, masks)),
        torch.tensor(values.astype(np.float64).std(), dtype=torch.float32),
    )
    everything = np.concatenate([m.flatten().numpy() for m in maps])
    torch.testing.assert_close(
        feature_std(Features(None, maps)).item(), float(everything.std())
    )


def test_ratio():
    stds = dict(a=torch.tensor(0.5), b=torch.tensor(2.0))
    assert std_ratio(stds).item() == 4.0
