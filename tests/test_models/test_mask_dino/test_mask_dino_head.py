import pytest
import torch

from kpu_mm.models import MaskDINOHead
from kpu_mm.models.mask_dino import FocalClasses
from tests.mask_dino_samples import CHANNELS, backbone_maps, random_sample, small_head


@pytest.mark.parametrize('counts', [(3, 2), (0, 4), (0, 0), (12, 1)])
def test_every_parameter_gets_a_gradient(counts):
    torch.manual_seed(0)
    head = small_head()
    head.init_weights()
    losses = head.loss(backbone_maps(2), [random_sample(n) for n in counts])
    sets = ('', 'd0.', 'd1.', 'enc.', 'dn.', 'dn.d0.', 'dn.d1.')
    terms = ('cls', 'bbox', 'iou', 'mask', 'dice')
    assert set(losses) == {f'{s}loss_{t}' for s in sets for t in terms}
    sum(losses.values()).backward()
    for name, parameter in head.named_parameters():
        assert parameter.grad is not None, name
    # Nothing to denoise, or more objects in an image than there is room for.
    off = max(counts) in (0, 12)
    denoising = [v for k, v in losses.items() if k.startswith('dn.')]
    assert all((loss == 0) == off for loss in denoising)
    if sum(counts) == 0:
        assert losses['loss_cls'] > 0
        assert losses['loss_mask'] == losses['loss_bbox'] == 0


def test_the_focal_loss_gets_no_empty_batch():
    """Without objects nothing is denoised, and mmcv's CUDA kernel takes no empty batch."""
    torch.manual_seed(0)
    classes = FocalClasses(5)
    sizes = []
    classes.focal_loss.register_forward_pre_hook(lambda _, args: sizes.append(len(args[0])))
    logits = torch.randn(2, 0, 5, requires_grad=True)
    loss = classes.loss(logits, torch.zeros(2, 0, dtype=torch.long), torch.tensor(1.0))
    loss.backward()
    assert loss == 0 and logits.grad.shape == logits.shape
    assert classes.loss(torch.randn(2, 3, 5), torch.full((2, 3), 5), torch.tensor(1.0)) > 0
    assert sizes == [6]


def test_learned_queries_and_softmax():
    torch.manual_seed(0)
    head = small_head(
        classes=dict(type='kpu_mm.SoftmaxClasses'),
        queries=dict(type='kpu_mm.LearnedQueries', num_queries=10),
    )
    head.init_weights()
    assert head.predictor.cls.out_features == 5
    losses = head.loss(backbone_maps(2), [random_sample(2), random_sample(0)])
    # Nothing is selected, and where denoising starts nothing is predicted.
    sets = {key.rpartition('loss_')[0] for key in losses}
    assert sets == {'', 'd0.', 'd1.', 'dn.', 'dn.d1.'}
    sum(losses.values()).backward()
    for name, parameter in head.named_parameters():
        assert parameter.grad is not None, name
    assert head.queries.box_embedding.weight.grad.any()
    losses = head.loss(backbone_maps(1), [random_sample(0)])
    assert losses['dn.loss_cls'] == 0 < losses['loss_cls']


def test_bfloat16_step_is_finite():
    torch.manual_seed(0)
    head = small_head()
    head.init_weights()
    torch.nn.init.normal_(head.predictor.cls.weight, std=4)
    maps = [level.bfloat16() for level in backbone_maps(2)]
    with torch.autocast('cpu', dtype=torch.bfloat16):
        losses = head.loss(maps, [random_sample(3), random_sample(1)])
        outputs = head(maps)
    assert outputs.matching[-1].logits.dtype == torch.bfloat16
    assert outputs.matching[-1].logits.abs().max() > 20
    assert outputs.mask_features.dtype == torch.float32
    assert all(loss.dtype == torch.float32 for loss in losses.values())
    total = sum(losses.values())
    total.backward()
    gradients = [p.grad for p in head.parameters()]
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_predictions_are_the_same_with_and_without_neighbours():
    torch.manual_seed(0)
    head = small_head().eval()
    maps = backbone_maps(2)
    with torch.no_grad():
        both = head(maps).matching[-1]
        alone = head([level[:1] for level in maps]).matching[-1]
    for one, two in zip(alone, both, strict=True):
        torch.testing.assert_close(one, two[:1], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda maps: maps[1:], r'gives 3 maps .* in_channels='),
        (lambda maps: [m[:, 1:] for m in maps], r'in_channels='),
        (lambda maps: [*maps[:3], maps[3][..., :1]], r'half the one before'),
    ],
)
def test_wrong_maps_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        small_head()(change(backbone_maps(1)))


def test_too_small_an_image_is_refused():
    maps = [torch.randn(1, c, 8 >> i, 8 >> i) for i, c in enumerate(CHANNELS)]
    small_head()(maps)
    maps = [torch.randn(1, c, 4 >> i, 4 >> i) for i, c in enumerate(CHANNELS)]
    maps[-1] = torch.randn(1, CHANNELS[-1], 1, 1)
    with pytest.raises(ValueError, match='6 cells cannot give num_queries=10'):
        small_head()(maps)


@pytest.mark.parametrize(
    ('part', 'changes'),
    [
        ('order', dict(pixel_decoder=dict(order='low2high'))),
        ('input_levels', dict(pixel_decoder=dict(input_levels=5))),
        ('box_init', dict(queries=dict(box_init='mask'))),
    ],
)
def test_unknown_options_are_refused(part, changes):
    cfg = dict(
        pixel_decoder=dict(type='kpu_mm.MaskDINOPixelDecoder'),
        queries=dict(type='kpu_mm.SelectedQueries'),
    )
    for key, change in changes.items():
        cfg[key].update(change)
    with pytest.raises(ValueError, match=f'{part}='):
        MaskDINOHead(**cfg)


def test_diverged_model_is_named():
    head = small_head()
    torch.nn.init.constant_(head.predictor.cls.weight, float('nan'))
    with pytest.raises(ValueError, match='not finite'):
        head.loss(backbone_maps(1), [random_sample(2)])
