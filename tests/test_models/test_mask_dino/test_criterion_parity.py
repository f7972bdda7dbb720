import pytest
import torch
from torch import nn

from kpu_mm.models.mask_dino import criterion as criterion_module
from kpu_mm.models.mask_dino.criterion import Criterion, HeadOutputs
from kpu_mm.models.mask_dino.denoising import Denoising
from kpu_mm.models.mask_dino.matcher import Pairs
from kpu_mm.models.mask_dino.predictor import FocalClasses, Predictions
from kpu_mm.models.mask_dino.targets import Target
from tests.mask_dino_pair import as_ours, random_noises, random_targets, rendered
from tests.references.mask_dino.criterion import losses, step_losses, uncertain_points
from tests.references.mask_dino.denoising import denoise
from tests.references.mask_dino.predictor import Output, Prediction

CLASSES, DIMS, QUERIES, POINTS = 7, 16, 12, 96
# the reference's terms
TERMS = dict(
    loss_cls='class', loss_bbox='bbox', loss_iou='giou', loss_mask='mask', loss_dice='dice'
)


def random_set(queries, batch=2):
    """One-hot mask queries: masks that both sides compute without rounding.

    Which points are the most uncertain would otherwise depend on rounding.
    """
    picks = torch.randint(DIMS, (batch, queries))
    return Predictions(
        torch.randn(batch, queries, CLASSES) * 2,
        torch.rand(batch, queries, 4) * 0.4 + 0.05,
        nn.functional.one_hot(picks, DIMS).float(),
    )


@pytest.fixture
def same_points(monkeypatch):
    """Every draw of n points gives the same n points."""
    cache, rand = {}, torch.rand

    def draw(*shape, **kwargs):
        shape = torch.Size(shape if isinstance(shape[0], int) else shape[0])
        if len(shape) < 2 or shape[-1] != 2:
            return rand(shape)
        count = shape[-2]
        if count not in cache:
            cache[count] = rand(count, 2)
        return cache[count].expand(shape).contiguous()

    monkeypatch.setattr(torch, 'rand', draw)
    return draw


def name_of(key):
    """The reference's name of a set: its index, 'intermediate', 'dn'."""
    *path, _ = key.split('.')
    index = {'enc': 'intermediate'} | {f'd{i}': i for i in range(9)}
    sets = [index[part] for part in path if part != 'dn'] or [9]
    return ('dn', sets[0]) if 'dn' in path else sets[0]


@pytest.mark.parametrize('ranks', [None, (11, 4)])
@pytest.mark.parametrize('counts', [(3, 7), (0, 5), (0, 0)])
@torch.no_grad()
def test_every_loss_of_a_step(counts, ranks, same_points, monkeypatch):
    features = torch.randn(2, DIMS, 16, 24)
    targets = random_targets(counts, canvas=(64, 96))
    # a box of 4 x 4 px of a canvas of 1024, where stabilisers matter
    for target in targets:
        target.boxes[:1, 2:] = 4 / 1024
    embedding = Denoising(CLASSES, DIMS)
    own, theirs, size = None, None, 0
    if sum(counts):
        noises = random_noises(targets)
        theirs = denoise(targets, noises, embedding.label_embedding, QUERIES)
        own = embedding(as_ours(targets, noises)[0], QUERIES)
        own = own._replace(content=theirs.content, references=theirs.logits)
        size = own.content.shape[1]
    matching = [random_set(QUERIES) for _ in range(10)]
    repaired = [random_set(size) for _ in range(10)] if size else []
    selected = random_set(QUERIES)
    if sum(counts):
        matching[-1].boxes[:, 0] = targets[1].boxes[0]

    if ranks is not None:
        ranks = (sum(counts), *ranks)
        monkeypatch.setattr(
            criterion_module, 'reduce_mean', lambda x: x.new_tensor(sum(ranks) / len(ranks))
        )
    ours = Criterion(FocalClasses(CLASSES), num_points=POINTS)(
        HeadOutputs(tuple(matching), tuple(repaired), selected, features),
        [Target(*t) for t in targets],
        own,
    )

    sets = [rendered(one, features) for one in matching]
    if size:
        dn = [rendered(one, features) for one in repaired]
        sets = [
            Prediction(*(torch.cat(p, 1) for p in zip(a, b, strict=True)))
            for a, b in zip(dn, sets, strict=True)
        ]
    wanted = step_losses(
        Output(sets, rendered(selected, features), None, None),
        targets,
        theirs,
        lambda b: same_points(b, POINTS, 2),
        same_points,
        ranks=ranks,
        points=POINTS,
    )
    assert len(ours) == (105 if size else 55)
    seen = set()
    for key, value in ours.items():
        name, term = name_of(key), TERMS[key.split('.')[-1]]
        seen.add((name, term))
        torch.testing.assert_close(
            value,
            wanted[name][term],
            rtol=1e-4,
            atol=1e-6,
            msg=lambda text, key=key: f'{key}: {text}',
        )
    # what is not there is constantly zero
    for name, terms in wanted.items():
        for term, value in terms.items():
            assert (name, term) in seen or value == 0


@pytest.mark.parametrize('side', [4, 8, 32, 200])
def test_giou_of_small_boxes(side, same_points):
    """A square shifted by a tenth: its overlap does not depend on size."""
    size = side / 1024
    box = torch.tensor([0.5, 0.5, size, size])
    target = Target(torch.tensor([0]), box[None], torch.ones(1, 64, 64) > 0)
    one = Predictions(
        torch.zeros(1, 1, CLASSES),
        (box + torch.tensor([size / 10, 0, 0, 0]))[None, None],
        torch.zeros(1, 1, DIMS),
    )
    zero = torch.tensor([0])
    features = torch.zeros(1, DIMS, 16, 16)
    ours = Criterion(FocalClasses(CLASSES), num_points=POINTS).set_losses(
        one, features, [target], [Pairs(zero, zero)], torch.tensor(1.0)
    )
    wanted = losses(rendered(one, features), [target], [[(0, 0)]], 1, same_points, POINTS)
    torch.testing.assert_close(ours['loss_iou'], wanted['giou'], rtol=1e-4, atol=1e-6)
    # 1 - 0.9 / 1.1, the stabiliser 1e-6 beside an area of size ** 2
    area = size**2
    overlap = 0.9 * area / (1.1 * area + 1e-6)
    assert abs(ours['loss_iou'] / 2 - (1 - overlap)) < 1e-4
    if side == 4:
        assert abs(ours['loss_iou'] / 2 - 0.2278) < 1e-3


def test_uncertain_points_of_the_same_seed():
    criterion = Criterion(FocalClasses(CLASSES))
    masks = torch.randn(1, 16, 24)
    draws, rand = [], torch.rand
    seed = torch.seed()
    ours = criterion.draw_points(masks)[0]
    torch.manual_seed(seed)

    def recorded(*shape):
        draws.append(shape[0])
        return rand(1, *shape)[0]

    wanted = uncertain_points(masks[0], recorded, 12544)
    assert draws == [37632, 3136]
    assert ours.shape == (12544, 2)
    kept = 9408
    torch.testing.assert_close(ours[kept:], wanted[kept:], rtol=0, atol=0)
    # the uncertain ones in any order
    assert set(map(tuple, ours[:kept].tolist())) == set(map(tuple, wanted[:kept].tolist()))


def test_points_carry_no_gradient():
    masks = torch.randn(2, 16, 24, requires_grad=True)
    points = Criterion(FocalClasses(CLASSES), num_points=POINTS).draw_points(masks)
    assert points.shape == (2, POINTS, 2)
    assert not points.requires_grad
