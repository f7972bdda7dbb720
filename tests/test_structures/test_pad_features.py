import torch

from kpu_mm.structures import Features, pad_features


def features(count, *sizes, summary=True):
    return Features(
        torch.randn(count, 5) if summary else None,
        tuple(torch.randn(count, 2 + i, *s) for i, s in enumerate(sizes)),
    )


def test_maps_of_several_sizes_are_padded():
    first, second = features(1, (2, 5), (1, 3)), features(2, (3, 4), (2, 2))
    summary, maps, masks = pad_features([first, second], masked=True)
    assert torch.equal(summary, torch.cat([first.summary, second.summary]))
    assert [m.shape for m in maps] == [(3, 2, 3, 5), (3, 3, 2, 3)]
    for i, (m, mask) in enumerate(zip(maps, masks, strict=True)):
        assert mask.shape == (3, 1, *m.shape[-2:]) and mask.dtype == torch.bool
        for rows, item in ((slice(1), first), (slice(1, 3), second)):
            own = item.maps[i]
            h, w = own.shape[-2:]
            assert torch.equal(m[rows, :, :h, :w], own)
            assert not m[rows, :, h:].any() and not m[rows, :, :, w:].any()
            assert mask[rows, :, :h, :w].all()
            assert mask[rows].sum() == len(own) * h * w


def test_equal_sizes_need_no_mask():
    items = [features(1, (2, 3), summary=False) for _ in range(3)]
    summary, (m,), masks = pad_features(items, masked=False)
    assert summary is None and masks is None
    assert torch.equal(m, torch.cat([item.maps[0] for item in items]))
    _, _, (mask,) = pad_features(items, masked=True)
    assert mask.all() and mask.shape == (3, 1, 2, 3)


def test_type_is_kept():
    half = Features(None, (torch.ones(1, 1, 2, 2).half(),))
    wide = Features(None, (torch.ones(1, 1, 1, 3).half(),))
    assert pad_features([half, wide], masked=True).maps[0].dtype == torch.half
