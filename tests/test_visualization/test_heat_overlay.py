import numpy as np

from kpu_mm.visualization import heat_overlay


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
