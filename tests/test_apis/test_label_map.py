import torch
import torch.nn.functional as F

from kpu_mm.apis.label_map import label_map, resize


def test_labels_without_all_logits_at_once():
    logits = torch.randn(19, 5, 7)
    whole = F.interpolate(logits[None], (33, 20), mode='bilinear')[0]
    assert torch.equal(label_map(logits, (33, 20)), whole.argmax(0))
    assert len(label_map(logits, (33, 20)).unique()) > 9


def test_same_size_is_left_alone():
    logits = torch.randn(3, 5, 7)
    assert torch.equal(resize(logits, (5, 7)), logits)
    assert torch.equal(label_map(logits, (5, 7)), logits.argmax(0))
