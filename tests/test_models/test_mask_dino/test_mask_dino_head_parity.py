import pytest
import torch
from mmdet.models.layers import inverse_sigmoid

from kpu_mm.models.mask_dino import predictor, query_decoder
from kpu_mm.models.mask_dino.targets import Target
from tests.mask_dino_pair import (
    as_ours,
    assert_same,
    build_pair,
    random_maps,
    random_noises,
    random_targets,
    renamed,
    rendered,
)
from tests.references.mask_dino.denoising import denoise
from tests.references.mask_dino.predictor import Prediction

QUERIES = 12


def both(pair, maps, targets=None):
    """All predictions of the head and of the reference, DN queries first."""
    own = theirs = None
    if targets is not None:
        noises = random_noises(targets)
        embedding = pair.reference.predictor.label_enc
        theirs = denoise(targets, noises, embedding, QUERIES)[:3]
        objects, noise = as_ours(targets, noises)
        own = pair.head.denoising(objects, QUERIES, noise)
    ours = pair.head(maps, own)
    features = ours.mask_features
    sets = [
        Prediction(
            *(
                torch.cat(parts, 1)
                for parts in zip(rendered(dn, features), rendered(matching, features), strict=True)
            )
        )
        for dn, matching in zip(ours.denoising, ours.matching, strict=True)
    ]
    return ours, sets, pair.reference(maps, theirs)


def train_step(head):
    """The head's predictions of random maps, denoising ones included."""
    objects = random_targets((3, 7))
    targets, noise = as_ours(objects, random_noises(objects))
    return head(random_maps(), head.denoising(targets, QUERIES, noise))


@pytest.mark.parametrize(
    ('layout', 'counts', 'depth'), [('3s', None, 9), ('4s', (3, 7), 9), ('5s', (0, 5), 3)]
)
@torch.no_grad()
def test_every_prediction_set(layout, counts, depth):
    pair = build_pair(layout=layout, queries=QUERIES, depth=depth)
    targets = counts and random_targets(counts)
    ours, sets, wanted = both(pair, random_maps(), targets)
    assert len(sets) == len(wanted.sets) == depth + 1
    for found, expected in zip(sets, wanted.sets, strict=True):
        assert_same(found, expected)
    assert_same(rendered(ours.selected, ours.mask_features), wanted.intermediate)


@torch.no_grad()
def test_learned_queries():
    pair = build_pair(queries=QUERIES, two_stage=False, depth=2)
    ours, sets, wanted = both(pair, random_maps(), random_targets((2, 4)))
    assert ours.selected is None
    for found, expected in zip(sets, wanted.sets, strict=True):
        assert_same(found, expected)


def border_references(batch=2, queries=QUERIES):
    low = torch.full((batch, queries, 4), 1e-5)
    boxes = torch.where(torch.rand_like(low) < 0.5, low, 1 - low)
    ordinary = torch.rand(batch, queries // 2, 4)
    boxes[:, : queries // 2] = ordinary
    return inverse_sigmoid(boxes)


def decode(pair, maps, references):
    """Predictions of the decoder's layers from given references."""
    reference, head = pair
    content = torch.randn(len(references), QUERIES, 32)
    features = head.pixel_decoder(maps)
    states, starts = head.decoder(content, references.sigmoid(), features, head.predictor.box)
    ours = [
        rendered(head.predictor.refine(*pair), features.masks)
        for pair in zip(states, starts, strict=True)
    ]
    mask_features, memories = reference.pixel_decoder(maps)
    maps = memories[::-1]
    memory = torch.cat([m.flatten(2).transpose(1, 2) for m in maps], 1)
    own = reference.predictor
    states, starts = own.decoder(content, references, memory, [m.shape[2:] for m in maps], None)
    wanted = []
    for state, start in zip(states, starts, strict=True):
        state = own.decoder_norm(state)
        boxes = (own._bbox_embed(state) + inverse_sigmoid(start)).sigmoid()
        wanted.append(own.predict(state, boxes, mask_features))
    return ours, wanted


@torch.no_grad()
def test_references_at_the_border():
    pair = build_pair(queries=QUERIES, depth=3)
    for ours, wanted in zip(*decode(pair, random_maps(), border_references()), strict=True):
        assert_same(ours, wanted)


@torch.no_grad()
def test_a_coarser_stabiliser_would_differ(monkeypatch):
    for module in (query_decoder, predictor):
        monkeypatch.setattr(module, 'inverse_sigmoid', lambda x: inverse_sigmoid(x, eps=1e-3))
    pair = build_pair(queries=QUERIES, depth=3)
    ours, wanted = decode(pair, random_maps(), border_references())
    assert (ours[-1].boxes - wanted[-1].boxes).abs().max() > 1e-3


@torch.no_grad()
def test_a_single_norm_would_differ():
    pair = build_pair(depth=1)
    state, start = torch.randn(2, QUERIES, 32), torch.rand(2, QUERIES, 4)
    head, own = pair.head.predictor, pair.reference.predictor
    normed = own.decoder_norm(state)
    boxes = (own._bbox_embed(normed) + inverse_sigmoid(start)).sigmoid()
    wanted = own.predict(normed, boxes, torch.randn(2, 32, 4, 6))
    twice, once = head.refine(state, start), head.predict(state, start)
    torch.testing.assert_close(twice.logits, wanted.logits, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(twice.boxes, wanted.boxes, rtol=0, atol=1e-5)
    assert (once.logits - wanted.logits).abs().max() > 1e-2


@torch.no_grad()
def test_initial_prediction_equals_the_selection():
    pair = build_pair(queries=QUERIES, depth=2)
    ours = train_step(pair.head)
    initial, selected = ours.matching[0], ours.selected
    for name in ('logits', 'mask_queries'):
        torch.testing.assert_close(
            getattr(initial, name), getattr(selected, name), rtol=0, atol=1e-5
        )
    # mask2box replaced the boxes
    assert (initial.boxes - selected.boxes).abs().max() > 1e-3


@torch.no_grad()
def test_evaluation_is_training_without_objects():
    pair = build_pair(queries=QUERIES, depth=3)
    maps = random_maps()
    nothing = [Target(*t) for t in random_targets((0, 0))]
    head = pair.head.train()
    trained = head(maps, head.denoising(nothing, QUERIES))
    plain = head.eval()(maps)
    for a, b in zip(trained.matching, plain.matching, strict=True):
        for x, y in zip(a, b, strict=True):
            torch.testing.assert_close(x, y, rtol=0, atol=1e-6)


@torch.no_grad()
def test_an_image_alone_and_in_a_batch():
    pair = build_pair(queries=QUERIES, depth=3)
    maps = random_maps(3)
    together, alone = pair.head(maps), pair.head([m[1:2] for m in maps])
    for a, b in zip(together.matching, alone.matching, strict=True):
        for x, y in zip(a, b, strict=True):
            torch.testing.assert_close(x[1:2], y, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_a_larger_canvas_changes_the_outputs():
    """Padding is not masked: by design its cells are attended to."""
    pair = build_pair(queries=QUERIES, depth=3)
    maps = random_maps(1)
    padded = [torch.nn.functional.pad(m, (0, m.shape[3] // 3, 0, 0)) for m in maps]
    small, large = pair.head(maps), pair.head(padded)
    difference = small.matching[-1].logits - large.matching[-1].logits
    assert difference.abs().max() > 1e-3


@pytest.mark.parametrize('box_init', ['no', 'mask2box'])
def test_every_gradient(box_init):
    """What is detached, and what is not, shows in the weights' gradients."""
    pair = build_pair(queries=QUERIES, box_init=box_init, depth=2, dims=64)
    ours, sets, wanted = both(pair, random_maps(), random_targets((3, 7)))
    ours_selected = rendered(ours.selected, ours.mask_features)
    loss, expected = 0, 0
    for found, other in zip(
        (*sets, ours_selected), (*wanted.sets, wanted.intermediate), strict=True
    ):
        for a, b in zip(found, other, strict=True):
            weight = torch.randn_like(a) / a.numel() ** 0.5
            loss = loss + (weight * a).sum()
            expected = expected + (weight * b).sum()
    loss.backward()
    expected.backward()
    gradients = renamed(pair.head, {n: p.grad for n, p in pair.reference.named_parameters()})
    for name, parameter in pair.head.named_parameters():
        scale = gradients[name].abs().max().item()
        assert scale > 0, name
        torch.testing.assert_close(
            parameter.grad,
            gradients[name],
            rtol=0,
            # gradients that cancel out are rounding alone
            atol=1e-3 * scale + 1e-4,
            msg=lambda text, name=name: f'{name}: {text}',
        )


def test_last_layer_does_not_train_the_selection():
    pair = build_pair(queries=QUERIES, depth=2)
    ours = train_step(pair.head)
    selection = list(pair.head.queries.parameters())
    last = ours.matching[-1]
    masks = last.mask_logits(ours.mask_features)
    total = last.logits.sum() + last.boxes.sum() + masks.sum()
    total.backward(retain_graph=True)
    assert all(p.grad is None for p in selection)
    # memory and mask features do carry gradients into the encoder
    assert pair.head.pixel_decoder.level_encoding.weight.grad.abs().sum() > 0
    ours.selected.logits.sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in selection)


def test_boxes_look_forward_twice():
    pair = build_pair(queries=QUERIES, depth=4)
    deltas = []

    def keep(module, args, out):
        out.retain_grad()
        deltas.append(out)

    pair.head.predictor.box.register_forward_hook(keep)
    ours = train_step(pair.head)
    # the selection's, then one of each layer in the loop, then the outputs'
    in_loop = deltas[1:5]
    layer = 3
    ours.matching[layer].boxes.sum().backward()
    for i, delta in enumerate(in_loop, 1):
        if i == layer - 1:
            assert delta.grad[:, -QUERIES:].abs().sum() > 0
        else:
            assert delta.grad is None or delta.grad.abs().sum() == 0


def test_boxes_of_the_initial_prediction_train_nothing():
    pair = build_pair(queries=QUERIES, depth=2)
    ours = train_step(pair.head)
    assert not ours.matching[0].boxes.requires_grad
    assert not ours.denoising[0].boxes.requires_grad
