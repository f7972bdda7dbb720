import pytest
import torch

from kpu_mm.registry import MODELS
from kpu_mm.structures import Features, Moments, valid_vectors

CHANNELS = (12, 6)


@pytest.fixture
def features():
    """A summary and two maps, one with padding, far from isotropic."""
    torch.manual_seed(0)

    def vectors(count, channels):
        axes, _ = torch.linalg.qr(torch.randn(channels, channels))
        scales = torch.logspace(-1, 1, channels)
        return torch.randn(count, channels) * scales @ axes.T + 20

    maps = tuple(
        # (B H W, C) -> (B, C, H, W)
        vectors(4 * 30 * 25, c).view(4, 30, 25, c).movedim(-1, 1)
        for c in CHANNELS
    )
    masks = tuple(torch.ones(4, 1, 30, 25, dtype=torch.bool) for _ in maps)
    masks[1][:, :, 20:] = False
    return Features(vectors(600, 8), maps, masks)


@pytest.fixture
def moments_of():
    """Moments by output."""

    def measure(features):
        return {
            output: Moments.of(valid_vectors(values, mask))
            for output, values, mask in features.outputs()
        }

    return measure


@pytest.fixture
def fit(features, moments_of):
    """Build a normaliser by its name and fit it to the features."""

    def build(name, **kwargs):
        normalizer = MODELS.build(
            dict(type=f'kpu_mm.{name}', **kwargs),
            default_args=dict(summary_channels=8, channels=CHANNELS),
        )
        normalizer.fit(moments_of(features))
        return normalizer

    return build
