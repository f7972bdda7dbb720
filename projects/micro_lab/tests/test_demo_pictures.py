from __future__ import annotations

import numpy as np
import torch
from PIL import Image

from kpu_mm.models.zero_shot import Boxes
from projects.micro_lab.demo_pictures import (
    collect_panels,
    draw_detections,
    draw_gap,
    draw_losses,
)

KEYS = ('loss', 's2t/clip', 't2s/clip', 'std_ratio', 'std_t2s_ratio')


def colours(path):
    """How many different colours a picture has."""
    pixels = np.asarray(Image.open(path).convert('RGB')).reshape(-1, 3)
    return len(np.unique(pixels, axis=0))


def test_curves_are_drawn(tmp_path):
    log = [
        {'step': step, **{key: i + 5 / step for i, key in enumerate(KEYS)}}
        for step in (10, 20, 30)
    ]
    for draw in (draw_losses, draw_gap):
        path = tmp_path / f'{draw.__name__}.png'
        draw(log, path)
        assert colours(path) > 20


def test_only_boxes_that_score_are_drawn(tmp_path):
    images = np.full((2, 64, 64, 3), 255, np.uint8)
    box = torch.tensor([[0.1, 0.1, 0.5, 0.5]])

    def draw(score):
        found = Boxes(box, torch.tensor([score]), torch.tensor([3]), 'abcdef')
        path = tmp_path / f'{score}.png'
        draw_detections(images, {'student': [found, found]}, path)
        return colours(path)

    assert draw(0.9) > draw(0.1)


def test_the_newest_panels_are_collected(tmp_path):
    for run, step, level in (('1', 9, 10), ('1', 10, 20), ('2', 5, 30)):
        folder = tmp_path / run / 'vis_data' / 'vis_image'
        folder.mkdir(parents=True, exist_ok=True)
        image = Image.new('L', (4, 4), level)
        image.save(folder / f'pca_clip_{step}.png')
        if run == '1':
            image.save(folder / f'pca_grounding_dino_{step}.png')
    found = {p.stem: Image.open(p) for p in collect_panels(tmp_path)}
    assert set(found) == {'pca_clip', 'pca_grounding_dino'}
    assert found['pca_clip'].getpixel((0, 0)) == 30
    assert found['pca_grounding_dino'].getpixel((0, 0)) == 20
