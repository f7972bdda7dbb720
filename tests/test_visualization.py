import numpy as np
import torch

from kpu_mm.visualization import feature_panel, pca_rgb


def test_main_directions_become_colours():
    torch.manual_seed(0)
    # independent signals of falling strength along three channels of five
    signals = torch.randn(3, 10, 12) * torch.tensor([9.0, 3, 1])[:, None, None]
    m = torch.cat((torch.zeros(2, 10, 12), signals))
    rgb = pca_rgb(m)
    assert rgb.shape == (3, 10, 12) and rgb.min() >= 0 and rgb.max() <= 1
    for colour, signal in zip(rgb, signals, strict=True):
        pair = torch.stack((colour.flatten(), signal.flatten()))
        assert torch.corrcoef(pair)[0, 1] > 0.9


def test_two_channels_and_constant_maps():
    assert pca_rgb(torch.randn(2, 4, 4)).shape == (3, 4, 4)
    assert torch.isfinite(pca_rgb(torch.ones(6, 4, 4))).all()


def test_equal_features_get_equal_colours():
    m = torch.randn(6, 4, 8)
    rgb = pca_rgb(m[:, :, :4], like=m)
    torch.testing.assert_close(rgb, pca_rgb(m)[:, :, :4])


def test_panel_keeps_the_image():
    image = torch.randint(256, (3, 224, 224)).byte()
    panel = feature_panel(image, [torch.randn(8, 7, 7)])
    assert panel.shape == (224, 448, 3) and panel.dtype == np.uint8
    assert (panel[:, :224] == image.permute(1, 2, 0).numpy()).all()
