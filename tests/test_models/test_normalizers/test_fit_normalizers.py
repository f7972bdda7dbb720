import pytest
import torch
from mmengine.model import ExponentialMovingAverage

from kpu_mm.models import KPUDistiller
from kpu_mm.models.normalizers import fit_normalizers
from kpu_mm.structures import Moments, valid_vectors

PHIS = dict(type='kpu_mm.PHISNormalizer')


@pytest.fixture
def build(cfg):
    def make(normalizer, streams=None, **kwargs):
        torch.manual_seed(0)
        return KPUDistiller(**cfg, streams=streams, normalizer=normalizer, **kwargs).eval()

    return make


def batches(count, padded=False):
    """As many batches of two as there are numbers."""
    made = []
    for seed in range(count):
        torch.manual_seed(seed)
        mask = None
        if padded:
            mask = torch.ones(2, 64, 96, dtype=torch.bool)
            mask[1, :, 64:] = False
        images = torch.randint(256, (2, 3, 64, 96)).byte()
        made.append(dict(images=images, mask=mask, skipped=[('a', 'b')]))
    return made


def targets(model, name, images, mask=None):
    teacher = model.teachers[name].encode(images, mask)
    return model.links[name].targets(teacher)


def assert_close(features, expected):
    for (name, a, _), (_, b, _) in zip(features.outputs(), expected.outputs(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4, msg=name)


def test_none_by_default(build):
    model = build(None)
    assert model.links['dino'].normalizer is None
    assert not any('normalizer' in key for key in model.state_dict())
    images = batches(1)[0]['images']
    assert_close(targets(model, 'dino', images), model.teachers['dino'].encode(images))


def test_statistics_are_those_of_the_images(build):
    model = build(PHIS)
    stream = batches(4, padded=True)
    loaders = dict(dino=stream, gdino=stream)
    # five images: rounded up to three batches
    assert fit_normalizers(model, loaders, 5) == ['dino', 'gdino']
    seen = [targets(model, 'gdino', batch['images'], batch['mask']) for batch in stream[:3]]
    for i in range(len(seen[0].maps)):
        vectors = torch.cat([valid_vectors(f.maps[i], f.masks[i]) for f in seen])
        moments = Moments.of(vectors)
        one = torch.ones_like(moments.mean)
        torch.testing.assert_close(moments.variance, one, rtol=1e-4, atol=0)
        torch.testing.assert_close(moments.mean, 0 * one, rtol=0, atol=1e-4)


def test_teachers_of_one_stream(build):
    model = build(PHIS, streams=dict(dino='all', gdino='all'))
    assert fit_normalizers(model, dict(all=batches(2)), 4) == ['dino', 'gdino']
    alone = build(PHIS)
    fit_normalizers(alone, dict(dino=batches(2), gdino=batches(2)), 4)
    state = alone.state_dict()
    fitted = {k: v for k, v in model.state_dict().items() if 'normalizer' in k}
    assert fitted
    for name, value in fitted.items():
        assert torch.equal(value, state[name]), name


def test_fitted_ones_stay(build):
    model = build(PHIS)
    loaders = dict(dino=batches(2), gdino=batches(2))
    fit_normalizers(model, loaders, 4)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    assert fit_normalizers(model, {}, 4) == []
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


def test_losses_compare_normalised_features(build):
    model = build(dict(type='kpu_mm.GlobalStandardNormalizer'))
    (batch,) = batches(1)
    streams = {name: dict(images=batch['images'], mask=None) for name in ('dino', 'gdino')}
    with pytest.raises(RuntimeError, match='no statistics'):
        model(streams)
    fit_normalizers(model, dict(dino=[batch], gdino=[batch]), 2)
    losses = model(streams)
    # dino's one map is standardised over these very images
    assert losses['std/dino'].item() == pytest.approx(1, rel=1e-5)
    student = model.student.encode(batch['images'])
    own_targets = targets(model, 'dino', batch['images'])
    terms, x_t, *_ = model.terms_of('dino', student, own_targets)
    assert losses['s2t/dino'].item() == terms['s2t'].mean().item()
    own = model.teachers['dino'].encode(batch['images'])
    std = own.maps[0].std(correction=0)
    torch.testing.assert_close(x_t.maps[0], (own.maps[0] - own.maps[0].mean()) / std)


def test_state_dict_brings_the_statistics(build):
    model = build(PHIS)
    fit_normalizers(model, dict(dino=batches(2), gdino=batches(2)), 4)
    other = build(PHIS)
    other.load_state_dict(model.state_dict())
    images = batches(1)[0]['images']
    assert_close(targets(other, 'dino', images), targets(model, 'dino', images))


def test_moving_average_follows(build):
    model = build(PHIS)
    average = ExponentialMovingAverage(model)
    fit_normalizers(model, dict(dino=batches(2), gdino=batches(2)), 4)
    average.update_parameters(model)
    images = batches(1)[0]['images']
    assert_close(targets(average.module, 'dino', images), targets(model, 'dino', images))


def test_errors_name_teacher_and_output(build):
    model = build(dict(type='kpu_mm.ZCANormalizer'))
    loaders = dict(dino=batches(2), gdino=batches(2))
    message = "normalizer of teacher 'dino', .*4 vectors .* 48 channels"
    with pytest.raises(ValueError, match=message):
        fit_normalizers(model, loaders, 4)
    assert not model.links['gdino'].normalizer.fitted
