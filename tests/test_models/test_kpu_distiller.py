import copy
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from mmengine.optim import OptimWrapper

from kpu_mm.analysis.agreement import measure_agreement
from kpu_mm.analysis.batches import Batch
from kpu_mm.engine.optimizers import AutocastOptimWrapper
from kpu_mm.models import KPUDistiller
from tests.small_vits import small_vit


def build(cfg, **kwargs):
    torch.manual_seed(0)
    distiller = KPUDistiller(**{**cfg, **kwargs})
    for p in distiller.parameters():
        if p.requires_grad:  # gamma 0 would hide the injectors
            p.data += 0.02 * torch.randn_like(p)
    return distiller


def make_streams(seed=0, padded=False):
    torch.manual_seed(seed)
    mask = None
    if padded:
        mask = torch.ones(2, 96, 128, dtype=torch.bool)
        mask[0, 64:] = False
        mask[1, :, 96:] = False
    return dict(
        dino=dict(images=torch.randint(256, (3, 3, 56, 56)).byte(), mask=None),
        gdino=dict(images=torch.randint(256, (2, 3, 96, 128)).byte(), mask=mask),
    )


def l_align(x1, v1, x2, v2):
    """The paper's L_align with one map each, image by image."""
    cos = (v1 * v2).sum(1) / (v1.norm(dim=1) * v2.norm(dim=1))
    diff = (v1 - v2).abs()
    smooth = torch.where(diff < 1, 0.5 * diff**2, diff - 0.5)
    loss = 0.9 * (1 - cos).mean((1, 2)) + 0.1 * smooth.mean((1, 2, 3))
    if x1 is not None:
        loss = loss + 1 - (x1 * x2).sum(1) / (x1.norm(dim=1) * x2.norm(dim=1))
    return loss


def mlp(h, x):
    return h[2](F.gelu(h[0](x)))


def mlp_map(h, m):
    return mlp(h, m.movedim(1, -1)).movedim(-1, 1)


def to_size(m, like):
    return F.interpolate(m, like.shape[-2:], mode='bilinear')


def test_loss_is_the_papers(cfg):
    model = build(cfg).eval()
    streams = make_streams()
    losses = model(streams)
    expected = {}
    with torch.no_grad():
        for name, batch in streams.items():
            features = model.student.encode(batch['images'])
            teacher = model.teachers[name](batch['images'])
            total = dict(s2t=0, t2s=0, rec=0)
            pairs = dict(dino=[(0, 2)], gdino=[(0, 0), (0, 1), (1, 2), (2, 3)])[name]
            # stride 4 joined a map of stride 8, which t2s leaves out
            unified_pairs = [pair for pair in pairs if pair != (0, 0)]
            p = {term: getattr(model.links[name], term) for term in total}
            h0 = {t: p[t].summary for t in total}
            x_t, x = teacher.summary, features.summary
            has = x_t is not None
            x_u = mlp(h0['t2s'], x_t) if has else None
            # the levels of strides 4 and 8 share one map of three, 1 to 4
            weights = dict(dino=[1], gdino=[1 / 15, 4 / 15, 1 / 3, 1 / 3])[name]
            for k, (i, j) in enumerate(pairs):
                v_t, v = teacher.maps[i], features.maps[j]
                total['s2t'] += weights[k] * l_align(
                    mlp(h0['s2t'], x) if has else None,
                    mlp_map(p['s2t'].maps[k], to_size(v, v_t)),
                    x_t,
                    v_t,
                )
            for k, (i, j) in enumerate(unified_pairs):
                v_t, v = teacher.maps[i], features.maps[j]
                h = {t: p[t].maps[k] for t in ('t2s', 'rec')}
                unified = to_size(mlp_map(h['t2s'], v_t), v)
                total['t2s'] += l_align(x if has else None, v, x_u, unified)
                total['rec'] += l_align(
                    x_t,
                    v_t,
                    mlp(h0['rec'], x_u) if has else None,
                    mlp_map(h['rec'], to_size(unified, v_t)),
                )
            for term, value in total.items():
                if term != 's2t':
                    value = value / len(unified_pairs)
                expected[f'{term}/{name}'] = value.mean()
    assert expected.keys() <= losses.keys()
    for key, value in expected.items():
        torch.testing.assert_close(losses[key], value, rtol=1e-4, atol=1e-5)
    # T = 2: every teacher counts one half
    torch.testing.assert_close(losses['loss'], sum(expected.values()) / 2, rtol=1e-4, atol=1e-5)
    assert losses['std/gdino'] > 0 and losses['std_t2s/dino'] > 0


def test_gradients_reach_all_that_is_trained_and_nothing_else(cfg):
    model = build(cfg).train()
    model(make_streams())['loss'].backward()
    for name, p in model.named_parameters():
        if p.requires_grad:
            assert p.grad is not None and p.grad.abs().max() > 0, name
        else:
            assert p.grad is None and '.sentinel.' in name, name
    for teacher in model.teachers.values():
        assert all(p.grad is None for p in teacher.parameters())
        assert not teacher.training


@pytest.mark.parametrize('projector', ['MLP', 'Transformer'])
@pytest.mark.parametrize('kind', ['KPU', 'ViT'])
@pytest.mark.parametrize('teacher', ['dino', 'gdino'])
def test_ddp_finds_no_idle_weights_without_summaries(cfg, teacher, kind, projector):
    cfg['teachers'] = {teacher: cfg['teachers'][teacher]}
    if teacher == 'dino':
        cfg['align'] = dict(type='kpu_mm.AlignLoss', summary=0.0)
    small = dict(inplanes=8, num_interactions=1) if kind == 'KPU' else {}
    sentinel = small_vit('siglip_vision_model')
    cfg['student'] = dict(type=f'kpu_mm.{kind}Backbone', sentinel=sentinel, frozen='none', **small)
    cfg['projector'] = dict(type=f'kpu_mm.{projector}Projector')
    model = build(cfg, terms=dict(s2t=1.0, t2s=1.0) if projector == 'MLP' else dict(s2t=1.0))
    model({teacher: make_streams()[teacher]})['loss'].backward()
    for name, p in model.named_parameters():
        assert p.requires_grad == (p.grad is not None), name
    # A transformer's maps depend on the student's summary.
    head = model.student.sentinel.model.vision_model.head
    assert all(p.requires_grad == (projector == 'Transformer') for p in head.parameters())
    assert model.links[teacher].summary_channels is None
    batches = [Batch(make_streams()[teacher]['images'], None)]
    assert 'summary' not in measure_agreement(model, teacher, batches)


def test_unification_moves_both_sides(cfg):
    model = build(cfg, terms=dict(t2s=1.0))
    model(make_streams())['loss'].backward()
    assert model.student.up.weight.grad.abs().max() > 0
    t2s = model.links['gdino'].t2s.maps[0]
    assert t2s[0].weight.grad.abs().max() > 0


def test_a_level_that_joined_a_map_is_unified_only_without_s2t(cfg):
    model = build(cfg)
    link = model.links['gdino']
    assert link.levels.pairs == ((0, 0), (0, 1), (1, 2), (2, 3))
    assert link.unified == (1, 2, 3)
    images = make_streams()['gdino']['images']
    student = model.student.encode(images)
    teacher = model.teachers['gdino'].encode(images)
    for m in student.maps:
        m.retain_grad()
    losses, _, _, unified = model.terms_of('gdino', student, teacher)
    (losses['t2s'] + losses['rec']).sum().backward()
    assert [m.grad is None for m in student.maps] == [True, *[False] * 3]
    assert len(unified.maps) == 3
    model = build(cfg, terms=dict(t2s=1.0))
    model(make_streams())['loss'].backward()
    assert model.links['gdino'].unified == (0, 1, 2, 3)
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


def test_each_cell_of_each_level_learns_from_one_coarse_map(cfg):
    cfg['teachers'].pop('gdino')
    model = build(cfg)
    images = make_streams()['dino']['images']
    student, teacher = model.student.encode(images), model.teachers['dino'].encode(images)
    for m in student.maps:
        m.retain_grad()
    model.terms_of('dino', student, teacher).losses['s2t'].sum().backward()
    for m in student.maps:
        assert (m.grad.abs().sum(1) > 0).all(), m.shape


def test_terms_switch(cfg):
    streams = make_streams()
    full = build(cfg).eval()(streams)
    model = build(cfg, terms=dict(s2t=2.0)).eval()
    assert model.links['dino'].s2t is not None
    assert model.links['dino'].t2s is model.links['dino'].rec is None
    losses = model(streams)
    kinds = {'loss', 's2t', 'std', 'varying', 'rank', 'weight'}
    assert {k.split('/')[0] for k in losses} == kinds
    assert not set(full) <= losses.keys()
    half = (losses['s2t/dino'] + losses['s2t/gdino']) / 2
    torch.testing.assert_close(losses['loss'], 2 * half)


@pytest.mark.parametrize('accumulative_counts', [1, 2])
@pytest.mark.parametrize('mode', ['plain', 'bfloat16'])
def test_per_stream_gives_the_same_step(cfg, accumulative_counts, mode):
    wrapper = AutocastOptimWrapper if mode == 'bfloat16' else OptimWrapper
    # gradients meet in bfloat16 in the one case, in float32 in the other
    rtol, atol = (1e-2, 2e-3) if mode == 'bfloat16' else (1e-4, 1e-6)
    results = []
    for backward in ('joint', 'per_stream'):
        model = build(cfg, backward=backward).train()
        params = [p for p in model.parameters() if p.requires_grad]
        optim = wrapper(
            optimizer=torch.optim.SGD(params, lr=0.1), accumulative_counts=accumulative_counts
        )
        logs = [
            model.train_step(dict(streams=make_streams(i)), optim)
            for i in range(2 * accumulative_counts)
        ]
        results.append((logs, params))
    for a, b in zip(*(r[0] for r in results), strict=True):
        assert a.keys() == b.keys()
        for key in a:
            assert a[key] == pytest.approx(b[key], rel=rtol), key
    for a, b in zip(*(r[1] for r in results), strict=True):
        torch.testing.assert_close(a, b, rtol=rtol, atol=atol)


def test_padding_pixels_do_not_matter(cfg):
    model = build(cfg).eval()
    streams = make_streams(padded=True)
    first = model(streams)
    batch = streams['gdino']
    hidden = ~batch['mask'][:, None].expand_as(batch['images'])
    noise = torch.randint(256, batch['images'].shape).byte()
    batch['images'] = torch.where(hidden, noise, batch['images'])
    second = model(streams)
    for key in first:
        torch.testing.assert_close(first[key], second[key])


def test_teachers_and_sentinel_stay_outside(cfg):
    model = build(cfg)
    assert not any('teacher' in n for n, _ in model.named_parameters())
    state = model.state_dict()
    assert not any('sentinel.' in k or 'teacher' in k for k in state)
    trained = {n for n, p in model.named_parameters() if p.requires_grad}
    assert trained <= state.keys()
    ignored = set(model._ddp_params_and_buffers_to_ignore)
    assert ignored == dict(model.named_parameters()).keys() - trained
    assert copy.deepcopy(model).teachers is model.teachers
    model.to(torch.float64)
    assert model.teachers['dino'].mean.dtype == torch.float64


def test_bfloat16_autocast_is_close(cfg):
    model = build(cfg).eval()
    streams = make_streams()
    exact = model(streams)['loss']
    with torch.autocast('cpu', torch.bfloat16):
        fast = model(streams)['loss']
    assert fast.dtype == torch.float32
    torch.testing.assert_close(exact, fast, rtol=0.02, atol=0)


def assert_same_step(plain, fast, streams):
    fast.load_state_dict(plain.state_dict())
    first, second = plain.train()(streams), fast.train()(streams)
    first['loss'].backward()
    second['loss'].backward()
    for key in first:
        torch.testing.assert_close(first[key], second[key], rtol=1e-4, atol=1e-5)
    for (name, p), q in zip(plain.named_parameters(), fast.parameters(), strict=True):
        if p.grad is not None:
            torch.testing.assert_close(
                p.grad,
                q.grad,
                rtol=1e-3,
                atol=1e-4 * p.grad.abs().max().item(),
                msg=lambda text, name=name: f'{name}: {text}',
            )


def test_channels_last_gives_the_same_step(cfg):
    streams = make_streams()
    assert_same_step(build(cfg), build(cfg, channels_last=True), streams)


@pytest.mark.slow
def test_compiled_gives_the_same_step(cfg):
    # one block and one teacher: the compiler takes its time on a CPU
    cfg['student'].update(num_interactions=1, num_extra_extractors=0)
    cfg['teachers'].pop('gdino')
    streams = dict(dino=make_streams()['dino'])
    fast = build(cfg, compile=dict(backend='aot_eager'))
    assert_same_step(build(cfg), fast, streams)


def test_tensor_mode_gives_student_features(cfg):
    model = build(cfg).eval()
    features = model(make_streams(), mode='tensor')
    assert features['dino'].summary.shape == (3, 48)
    assert len(features['gdino'].maps) == 4


@pytest.mark.parametrize(
    ('kwargs', 'message'),
    [
        (dict(teachers={}), 'at least one teacher'),
        (dict(terms=dict(s2s=1.0)), 's2s'),
        (dict(terms=dict(rec=1.0)), 'switch on both'),
        (dict(backward='both'), "backward='both'"),
        (dict(joined_weight=0), 'joined_weight=0: give a positive'),
        (dict(joined_weight=float('nan')), 'joined_weight=nan'),
        (dict(streams=dict(sam='dino')), r"no teacher \['sam'\]"),
        (dict(streams=dict(dino=[])), "'dino' sees no stream"),
        (dict(streams=dict(dino=['low', 'low'])), "'dino' has a stream twice"),
        (dict(align=dict(type=torch.nn.Identity)), 'Identity must say if it compares summaries'),
    ],
)
def test_bad_options(cfg, kwargs, message):
    with pytest.raises(ValueError, match=message):
        build(cfg, **kwargs)


@pytest.mark.parametrize(
    ('blocks', 'term', 'expected'), [(None, 's2t', 1), ((2, 4), 't2s', 1), ((2, 4), 's2t', 2)]
)
def test_layerwise_projectors_are_for_blocks(cfg, dinov2_dir, blocks, term, expected):
    vit = dict(type='kpu_mm.ViTBackbone', sentinel=str(dinov2_dir), blocks=blocks)
    cfg.update(student=vit, terms={term: 1.0})
    cfg['projector'] = dict(type='kpu_mm.LayerwiseProjector', num_blocks=expected, hidden=6)
    build(cfg)
    # 48 and 96 channels divide by 3, too, whatever they are of
    cfg['projector'].update(num_blocks=3)
    with pytest.raises(ValueError, match=f"num_blocks=3, .* '{term}' projects is {expected};"):
        build(cfg)


def test_teachers_of_one_stream(cfg):
    model = build(cfg, streams=dict(dino='all', gdino='all')).eval()
    separate = build(cfg).eval()
    separate.load_state_dict(model.state_dict())
    batch = make_streams()['dino']
    together = model(dict(all=batch))
    alone = separate(dict(dino=batch, gdino=batch))
    assert together.keys() == alone.keys()
    for key in alone:
        torch.testing.assert_close(together[key], alone[key])


def test_teacher_of_two_streams(cfg):
    """Each of its streams counts the same, whatever their sizes."""
    model = build(cfg, streams=dict(dino=['dino', 'gdino'])).eval()
    assert model.streams.of_stream == dict(dino=['dino'], gdino=['dino', 'gdino'])
    separate = build(cfg).eval()
    separate.load_state_dict(model.state_dict())
    small, large = make_streams().values()
    losses = model(dict(dino=small, gdino=large))
    at_small = separate(dict(dino=small, gdino=large))
    at_large = separate(dict(dino=large, gdino=large))
    for term in ('s2t', 't2s', 'rec'):
        for stream, alone in (('dino', at_small), ('gdino', at_large)):
            torch.testing.assert_close(losses[f'{term}/dino/{stream}'], alone[f'{term}/dino'])
    expected = (at_small['loss'] + at_large['loss']) / 2
    torch.testing.assert_close(losses['loss'], expected)
    parts = [model({name: batch})['loss'] for name, batch in (('dino', small), ('gdino', large))]
    torch.testing.assert_close(losses['loss'], sum(parts))


def test_stream_without_teacher(cfg):
    with pytest.raises(ValueError, match=r"\['sam'\] have no teacher"):
        build(cfg)(dict(sam={}))
    with pytest.raises(ValueError, match="mode='predict'"):
        build(cfg)(make_streams(), mode='predict')


def test_streams_that_training_needs(cfg):
    model = build(cfg)
    model.check_streams(['gdino', 'dino'])
    with pytest.raises(ValueError, match=r"no stream \['gdino'\]"):
        model.check_streams(['dino'])
    shared = build(cfg, streams=dict(dino='all', gdino='all'))
    shared.check_streams(['all'])
    with pytest.raises(ValueError, match=r"no stream \['all'\]"):
        shared.check_streams(['dino', 'gdino'])


def test_teacher_drop_wants_batches_of_one_size(cfg):
    packs = SimpleNamespace(dataset=SimpleNamespace(equal_batches=False))
    plain = SimpleNamespace(dataset=[])
    build(cfg).check_streams(dict(gdino=packs, dino=plain))
    model = build(cfg, balancer=dict(type='kpu_mm.TeacherDropBalancer'))
    model.check_streams(dict(gdino=plain, dino=plain))
    with pytest.raises(ValueError, match="stream 'gdino' have different numbers of images"):
        model.check_streams(dict(gdino=packs, dino=plain))
