import torch

from kpu_mm.structures import Features


def test_outputs_by_name():
    summary, fine, coarse = torch.ones(1), torch.ones(2), torch.ones(3)
    mask, other = torch.ones(4), torch.ones(5)
    features = Features(summary, (fine, coarse), (mask, other))
    assert list(features.outputs()) == [
        ('summary', summary, None),
        ('map 0', fine, mask),
        ('map 1', coarse, other),
    ]
    assert list(Features(None, (fine,)).outputs()) == [('map 0', fine, None)]
