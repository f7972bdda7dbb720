import json

import numpy as np
import pytest
import torch

from kpu_mm.visualization import feature_panel, loss_curves, pca_rgb, read_log


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


def write_log(folder, lines):
    folder.mkdir(parents=True)
    (folder / 'scalars.json').write_text('\n'.join(lines))


def test_logs_of_a_resumed_run_are_joined(tmp_path):
    rows = [dict(step=10, loss=3.0), dict(step=20, loss=2.0)]
    write_log(tmp_path / '1' / 'vis_data', [*map(json.dumps, rows), '{"step": 30, "lo'])
    rows = [dict(step=20, loss=2.5), dict(step=30, loss=1.0), {'step': 30, 'coco/AP': 0.4}]
    write_log(tmp_path / '2' / 'vis_data', map(json.dumps, rows))
    assert read_log(tmp_path) == [
        dict(step=10, loss=3.0),
        dict(step=20, loss=2.5),
        {'step': 30, 'loss': 1.0, 'coco/AP': 0.4},
    ]
    assert read_log(tmp_path / 'nothing') == []
    write_log(tmp_path / '3', ['half', '{"step": 1}'])
    with pytest.raises(ValueError, match='line 1, is not JSON'):
        read_log(tmp_path)


def test_each_term_is_a_curve_where_it_was_logged():
    log = [{'step': 1, 'loss': 3.0}, {'step': 2, 'loss': 2.0, 's2t/clip': 1.5, 'lr': 0.1}]
    (axis,) = loss_curves(log).axes
    curves = {line.get_label(): line.get_xydata().tolist() for line in axis.get_lines()}
    assert curves == {'loss': [[1, 3], [2, 2]], 's2t/clip': [[2, 1.5]]}
