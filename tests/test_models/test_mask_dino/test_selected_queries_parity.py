import pytest
import torch

from tests.mask_dino_pair import assert_same, build_pair, random_maps, rendered


@pytest.mark.parametrize(
    ('layout', 'size_of_stride_8', 'sizes'),
    [('3s', 0.05, (0.05, 0.10, 0.20)), ('4s', 0.40, (0.05, 0.10, 0.20, 0.40))],
)
def test_proposals(layout, size_of_stride_8, sizes):
    # 56 columns at stride 8: the centres of the outer ones lie within 0.01
    height, width = 64, 448
    pair = build_pair(layout=layout, depth=1)
    with torch.no_grad():
        features = pair.head.pixel_decoder(random_maps(1, (height, width)))
        _, logits = pair.head.queries.encode_proposals(features.memory, None, features.shapes)
        maps = [torch.zeros(1, 1, *shape) for shape in features.shapes]
        wanted, valid = pair.reference.predictor.proposals(maps)
    torch.testing.assert_close(logits[0], wanted, rtol=0, atol=1e-5)

    infinite = torch.isinf(logits[0])
    assert torch.equal(infinite.all(-1), infinite.any(-1))
    shapes = [tuple(shape) for shape in features.shapes]
    start = sum(h * w for h, w in shapes[: shapes.index((8, 56))])
    outer = {start + row * 56 + column for row in range(8) for column in (0, 55)}
    assert set(torch.where(~valid)[0].tolist()) == outer
    assert set(torch.where(infinite[:, 0])[0].tolist()) == outer

    boxes = logits[0].sigmoid()
    torch.testing.assert_close(
        boxes[start + 1], torch.tensor([1.5 / 56, 0.5 / 8, size_of_stride_8, size_of_stride_8])
    )
    (h0, w0), (h1, w1) = shapes[0], shapes[-1]
    first = (0.5 / w0, 0.5 / h0, sizes[0], sizes[0])
    last = (1 - 0.5 / w1, 1 - 0.5 / h1, sizes[-1], sizes[-1])
    for box, expected in ((boxes[0], first), (boxes[-1], last)):
        # the cell of an invalid proposal decodes to ones
        expected = torch.tensor(expected)
        if min(expected) <= 0.01 or max(expected) >= 0.99:
            expected = torch.ones(4)
        torch.testing.assert_close(box, expected)


@pytest.mark.parametrize('layout', ['3s', '4s', '5s'])
@pytest.mark.parametrize('box_init', ['no', 'bitmask', 'mask2box'])
def test_selection(layout, box_init):
    pair = build_pair(layout=layout, box_init=box_init, queries=20, depth=1)
    maps = random_maps(2)
    with torch.no_grad():
        features = pair.head.pixel_decoder(maps)
        ours = pair.head.queries(features, pair.head.predictor)
        mask_features, memories = pair.reference.pixel_decoder(maps)
        wanted = pair.reference.predictor(memories, mask_features)
        encoded, _ = pair.head.queries.encode_proposals(features.memory, None, features.shapes)
    # the content of each query tells which cell it is
    distance = ours.content[:, :, None] - encoded[:, None]
    distance = distance.abs().amax(-1)
    assert torch.equal(distance.argmin(-1), wanted.indices)
    assert distance.amin(-1).max() < 1e-4
    assert_same(rendered(ours.selected, features.masks), wanted.intermediate)
    torch.testing.assert_close(
        ours.references.sigmoid(), wanted.references.sigmoid(), rtol=0, atol=1e-4
    )
    assert not ours.references.requires_grad
    assert not ours.content.requires_grad


def test_invalid_cells_can_be_selected():
    """Their boxes are ones; they stay among the candidates."""
    pair = build_pair(layout='3s', box_init='no', queries=288, depth=1)
    with torch.no_grad():
        features = pair.head.pixel_decoder(random_maps(1, (32, 448)))
        ours = pair.head.queries(features, pair.head.predictor)
    # 4 x 56 + 2 x 28 + 14 cells less 6; 8 are invalid
    ones = (ours.selected.boxes[0] == 1).all(-1)
    assert 2 <= ones.sum() <= 8


def test_too_few_cells():
    pair = build_pair(queries=700, depth=1)
    with torch.no_grad():
        features = pair.head.pixel_decoder(random_maps(1, (64, 128)))
        with pytest.raises(ValueError, match='num_queries=700'):
            pair.head.queries(features, pair.head.predictor)
