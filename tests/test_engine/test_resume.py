"""What holds when a run resumes, and how it follows another schedule."""

import itertools

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS
from torch import nn

from kpu_mm.engine.resume import compare_configs
from kpu_mm.registry import RUNNERS

NUMBER = itertools.count()
WARM_UP = dict(type='LinearLR', start_factor=0.1, by_epoch=False, end=3)
COSINE = dict(type='CosineAnnealingLR', T_max=10, by_epoch=False)
STEPS = dict(type='MultiStepLR', milestones=[2, 5], by_epoch=False)


@MODELS.register_module(name='ResumedToy')
class Toy(nn.Module):
    def __init__(self, rates):
        super().__init__()
        self.layer = nn.Linear(2, 1)
        self.norm = nn.LayerNorm(2)
        self.rates = rates

    def train_step(self, data, optim_wrapper):
        groups = optim_wrapper.optimizer.param_groups
        self.rates.append([(g['lr'], g['weight_decay']) for g in groups])
        if isinstance(data, dict):
            data = data['streams']['near']
        loss = self.layer(self.norm(torch.tensor(data))).square().mean()
        optim_wrapper.update_params(loss)
        return dict(loss=loss.detach())


def runner(work_dir, lr=0.1, schedule=(WARM_UP, COSINE), iters=4, **options):
    optimizer = dict(type='AdamW', lr=lr, weight_decay=0.05)
    changes = options.pop('changes', {})
    loader = dict(
        dataset=[[1.0, 2.0]] * 8,
        sampler=dict(type='InfiniteSampler', shuffle=False),
        batch_size=2,
        collate_fn=dict(type='pseudo_collate'),
    )
    loop = dict(by_epoch=False, max_iters=iters, val_interval=100)
    paramwise = dict(custom_keys=dict(norm=dict(lr_mult=0.1)), bias_decay_mult=0.0)
    cfg = Config(
        dict(
            runner_type='kpu_mm.KPURunner',
            model=dict(type='ResumedToy', rates=[]),
            work_dir=str(work_dir),
            train_dataloader=options.pop('train_dataloader', loader),
            train_cfg=options.pop('train_cfg', loop),
            optim_wrapper=dict(optimizer=optimizer, paramwise_cfg=paramwise),
            param_scheduler=list(schedule),
            default_hooks=dict(checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=2)),
            env_cfg=dict(dist_cfg=dict(backend='gloo')),
            experiment_name=f'resumed{next(NUMBER)}',
            randomness=dict(seed=0),
            **options,
        )
    )
    cfg.merge_from_dict(changes)
    return RUNNERS.build(cfg)


def train(*args, **options):
    """The trained runner and the rate and decay of each group at each step."""
    run = runner(*args, **options)
    run.train()
    return run, run.model.rates


def warnings_of(work_dir):
    log = ''.join(p.read_text() for p in work_dir.rglob('*.log'))
    return log.partition('Settings that')[2].partition(' - mmengine')[0]


@pytest.mark.parametrize('schedule', [(), (WARM_UP, COSINE), (STEPS,), (WARM_UP, STEPS)])
def test_the_config_s_rate_and_schedule_hold(tmp_path, schedule):
    train(tmp_path, iters=4)
    new = dict(lr=0.004, schedule=schedule, iters=8)
    _, wanted = train(tmp_path / 'anew', **new)
    run, rates = train(tmp_path, resume=True, resume_schedule='config', **new)
    assert rates == wanted[4:]
    # of the layer's weight and bias, and of the norm
    assert len(set(rates[0])) == 3
    assert run.optim_wrapper.optimizer.state_dict()['state'][0]['step'] == 8
    log = warnings_of(tmp_path)
    assert "optimizer.lr: config 0.004, checkpoint 0.1; the config's holds" in log


def test_moments_and_weights_are_the_checkpoint_s(tmp_path):
    train(tmp_path, iters=2)
    saved = torch.load(tmp_path / 'iter_2.pth', weights_only=True)
    run, _ = train(tmp_path, lr=0.2, iters=2, resume=True, resume_schedule='config')
    state = run.optim_wrapper.optimizer.state_dict()['state']
    for i, moments in saved['optimizer']['state'].items():
        for name, value in moments.items():
            assert torch.equal(state[i][name], value)
    for name, value in run.model.state_dict().items():
        assert torch.equal(saved['state_dict'][name], value)


@pytest.mark.parametrize('source', [{}, dict(resume_schedule='config')])
def test_without_a_change_the_run_is_the_uninterrupted_one(tmp_path, source):
    whole, rates = train(tmp_path / 'whole', iters=8)
    path = str(tmp_path / 'whole' / 'iter_4.pth')
    half, later = train(tmp_path / 'half', iters=8, resume=True, load_from=path, **source)
    assert later == rates[4:]
    for a, b in zip(whole.model.parameters(), half.model.parameters(), strict=True):
        assert torch.equal(a, b)
    saved = [
        torch.load(tmp_path / name / 'iter_8.pth', weights_only=True) for name in ('whole', 'half')
    ]
    assert saved[0]['param_schedulers'] == saved[1]['param_schedulers']


def test_otherwise_the_checkpoint_s_rate_holds_and_is_named(tmp_path):
    _, rates = train(tmp_path, iters=4)
    _, later = train(tmp_path, lr=0.001, iters=6, resume=True)
    # as MMEngine lets schedules end at the last iteration
    assert later == [rates[-1]] * 2
    log = warnings_of(tmp_path)
    assert "optim_wrapper.optimizer.lr: config 0.001, checkpoint 0.1; the checkpoint's" in log
    assert "train_cfg.max_iters: config 6, checkpoint 4; the config's holds" in log
    assert 'add --cfg-options resume_schedule=config' in log
    assert 'work_dir' not in log and 'experiment' not in log


def test_epochs_and_iterations_are_counted_together(tmp_path):
    """Warm-up by iterations, then steps by epochs."""
    decay = dict(type='ExponentialLR', gamma=0.5, by_epoch=True)
    sampler = dict(type='DefaultSampler', shuffle=False)
    by_epoch = {
        'train_dataloader.sampler': sampler,
        'default_hooks.checkpoint': dict(by_epoch=True, interval=1),
    }
    old = dict(train_cfg=dict(by_epoch=True, max_epochs=2), changes=by_epoch)
    new = dict(old, train_cfg=dict(by_epoch=True, max_epochs=3), lr=0.02, schedule=(WARM_UP, decay))
    _, wanted = train(tmp_path / 'anew', **new)
    train(tmp_path, **old)
    _, rates = train(tmp_path, resume=True, resume_schedule='config', **new)
    assert len(wanted) == 12 and rates == wanted[8:]


def test_states_that_do_not_fit(tmp_path):
    train(tmp_path, iters=4)
    with pytest.raises(ValueError, match=r"types \['MultiStepLR'\] in the config and \['Linear"):
        train(tmp_path, schedule=[STEPS], resume=True)
    for source in ('checkpoint', 'config'):
        with pytest.raises(ValueError, match=r"type is 'SGD' in the config and 'AdamW' in the"):
            train(
                tmp_path,
                changes={'optim_wrapper.optimizer.type': 'SGD'},
                resume=True,
                resume_schedule=source,
            )
    with pytest.raises(ValueError, match=r'groups of the optimizer are not those of .*iter_4.pth'):
        train(tmp_path, changes={'optim_wrapper.paramwise_cfg': None}, resume=True)
    with pytest.raises(ValueError, match=r"resume_schedule='confg': choose from"):
        train(tmp_path, resume_schedule='confg')


TEXT = """
lr = 1e-4
work_dir = 'a'
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-4, betas=(0.9, 0.99)))
param_scheduler = dict(type='CosineAnnealingLR', T_max=9)
train_dataloader = dict(near=dict(batch_size=2, dataset=dict(root='x', classes=['a', 'b'])))
randomness = dict(seed=0)
"""
OWN, SAVED = "the config's holds", "the checkpoint's holds"


@pytest.mark.parametrize(
    'old, new, key, values, holder',
    [
        ('r=1e-4', 'r=1e-5', 'optim_wrapper.optimizer.lr', ('1e-05', '0.0001'), SAVED),
        ('99)', '9)', 'optim_wrapper.optimizer.betas', ('(0.9, 0.9)', '(0.9, 0.99)'), SAVED),
        ('T_max=9', 'T_max=12', 'param_scheduler.0.T_max', ('12', '9'), SAVED),
        ('seed=0', 'seed=1', 'randomness.seed', ('1', '0'), SAVED),
        ("'Opt", "'AmpOpt", 'optim_wrapper.type', ("'AmpOptimWrapper'", "'OptimWrapper'"), OWN),
        ("(type='O", "(a=1, type='O", 'optim_wrapper.a', ('1', 'unset'), OWN),
        ('size=2', 'size=4', 'train_dataloader.near.batch_size', ('4', '2'), OWN),
        ("'b'", "'c'", 'train_dataloader.near.dataset.classes', ("['a', 'c']", "['a', 'b']"), OWN),
        ('work_dir', 'model', 'model', ("'a'", 'unset'), OWN),
    ],
)
def test_each_setting_is_named(old, new, key, values, holder):
    assert old in TEXT
    changed = TEXT.replace(old, new)
    (line, *_) = compare_configs(changed, TEXT, 'checkpoint')
    assert line == f'{key}: config {values[0]}, checkpoint {values[1]}; {holder}'
    by_config = compare_configs(changed, TEXT, 'config')
    assert by_config == [line if key == 'randomness.seed' else line.replace(SAVED, OWN)]


def test_what_is_no_setting_is_not_compared():
    for old, new in [("'a'\n", "'b'\n"), ('lr = 1e-4', 'lr = 1'), ('(0.9, 0.99)', '[0.9, 0.99]')]:
        assert compare_configs(TEXT.replace(old, new), TEXT, 'checkpoint') == []
    assert compare_configs(TEXT + 'compile = None', TEXT, 'checkpoint') == []
    one = TEXT.replace("dict(type='Cos", "[dict(type='Cos").replace('T_max=9)', 'T_max=9)]')
    assert compare_configs(one, TEXT, 'checkpoint') == []


def test_configs_in_checkpoints_are_not_run(tmp_path):
    harm = f"__import__('pathlib').Path({str(tmp_path / 'harm')!r}).touch()"
    assert compare_configs(TEXT, TEXT + harm, 'checkpoint') == []
    (line,) = compare_configs(TEXT, f'{TEXT}model = {harm}', 'checkpoint')
    assert line.startswith('model: config unset, checkpoint "__import__')
    for text in ('model = dict(', '\0', harm):
        assert 'cannot be read' in compare_configs(TEXT, text, 'checkpoint')[0]
    train(tmp_path, iters=4)
    path = tmp_path / 'iter_4.pth'
    saved = torch.load(path, weights_only=True)
    saved['meta'] |= dict(config=harm, cfg=harm)
    torch.save(saved, path)
    train(tmp_path, iters=6, resume=True)
    assert not (tmp_path / 'harm').exists()


def test_rates_scale_with_the_batch(tmp_path):
    scaled = dict(auto_scale_lr=dict(enable=True, base_batch_size=8))
    _, wanted = train(tmp_path / 'plain', lr=0.025)
    assert train(tmp_path, **scaled)[1] == wanted
    _, wanted = train(tmp_path / 'plain', lr=0.025, iters=6)
    _, rates = train(tmp_path, iters=6, resume=True, resume_schedule='config', **scaled)
    assert rates == wanted[4:]
    with pytest.raises(ValueError, match='base_batch_size is None; set it to'):
        train(tmp_path / 'b', auto_scale_lr=dict(enable=True))


def test_rates_scale_with_the_batch_of_all_streams(tmp_path):
    stream = dict(dataset=[[1.0, 2.0]] * 8, collate_fn=dict(type='pseudo_collate'))
    streams = dict(near=dict(stream, batch_size=2), far=dict(stream, batch_size=2))
    options = dict(
        train_dataloader=streams,
        train_cfg=dict(type='kpu_mm.MultiStreamTrainLoop', max_iters=1),
        schedule=(),
        auto_scale_lr=dict(enable=True, base_batch_size=8),
    )
    _, rates = train(tmp_path, **options)
    assert rates[0][0] == (0.05, 0.05)
