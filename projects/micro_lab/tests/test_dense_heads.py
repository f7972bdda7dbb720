from __future__ import annotations

import torch

from projects.micro_lab.dense_heads import CellHeads, CellTargets, augment, normalise


def test_cells_by_hand(scenes):
    instances = torch.zeros_like(scenes.instances[:1])
    # digit 1 covers a quarter of cell (0, 0), digit 2 three quarters;
    # 7 of 64 pixels of cell (2, 3) are too few
    instances[0, :8, :2] = 1
    instances[0, :8, 2:8] = 2
    instances[0, 16, 24:31] = 1
    one = scenes._replace(instances=instances)
    targets = CellTargets(one, 8)
    expected = torch.full((1, 8, 8), -1)
    expected[0, 0, 0] = 1
    assert torch.equal(targets.shown, expected)
    values = torch.tensor([[7, 9, -1, -1, -1]])
    assert targets.gather(values)[0, 0, 0] == 9
    assert (targets.gather(values)[0, 1:] == -1).all()


def test_losses_vanish_for_features_that_know_it_all(scenes):
    """Heads of an identity over perfect features have nothing to learn."""
    heads = CellHeads(75, 8, with_digits=True)
    targets = CellTargets(scenes, 8)
    classes = targets.gather(scenes.digits) + 1
    # Heads have the scans of the training split, so use their indices.
    train_scans = scenes.scans.clamp(max=300)
    scenes = scenes._replace(scans=train_scans)
    scans = heads.scans[targets.gather(train_scans).clamp(min=0)]
    features = torch.cat([100 * torch.nn.functional.one_hot(classes, 11), scans], 3).permute(
        0, 3, 1, 2
    )
    for head, part in ((heads.classes, slice(11)), (heads.scan, slice(11, 75))):
        torch.nn.init.zeros_(head.bias)
        head.weight.data = torch.eye(75)[part, :, None, None]
    losses = heads(features, scenes)
    assert losses['class8'] < 1e-6 and losses['scan8'] < 1e-10
    spoilt = heads(features.flip(0), scenes)
    assert spoilt['class8'] > 1 and spoilt['scan8'] > 0.1


def test_augment_keeps_what_it_should(scenes):
    torch.manual_seed(0)
    grey = torch.full((4, 8, 8, 3), 100, dtype=torch.uint8)
    changed = augment(grey)
    # one brightness for an image, of all channels
    assert (changed == changed[:, :1, :1, :1]).all()
    assert len(changed.unique()) > 1
    recoloured = augment(grey, recolour=True)
    assert (recoloured == recoloured[:, :1, :1]).all()
    assert (recoloured[:, 0, 0, 0] != recoloured[:, 0, 0, 1]).any()


def test_normalise_by_hand():
    images = torch.tensor([[[[255, 0, 51]]]], dtype=torch.uint8)
    found = normalise(images, (0.5, 0.5, 0.1), (0.5, 0.25, 0.1)).flatten()
    torch.testing.assert_close(found, torch.tensor([1.0, -2.0, 1.0]))
