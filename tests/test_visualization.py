import numpy as np
import torch

from kpu_mm.visualization import feature_panel, heat_overlay, pca_rgb


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


def test_colours_by_hand():
    image = np.full((1, 3, 3), 100, np.uint8)
    heat = np.array([[-1.0, 0.5, 9.0]])
    drawn = heat_overlay(image, heat, 0.0, 1.0, opacity=0.5)
    # turbo's ends: dark blue (48, 18, 59), dark red (122, 4, 3)
    np.testing.assert_allclose(drawn[0, 0], [74, 59, 80], atol=1)
    np.testing.assert_allclose(drawn[0, 2], [111, 52, 51], atol=1)
    # its middle is green
    assert drawn[0, 1].argmax() == 1


def test_opacity_and_flat_heat():
    image = np.random.default_rng().integers(0, 256, (4, 5, 3), np.uint8)
    flat = np.full((4, 5), 0.3)
    np.testing.assert_array_equal(
        heat_overlay(image, flat, 0.3, 0.3, opacity=0.0), image
    )
    drawn = heat_overlay(image, flat, 0.3, 0.3, opacity=1.0)
    assert drawn.dtype == np.uint8 and (drawn == drawn[0, 0]).all()
