import errno
import fcntl
import itertools
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from mmengine.registry import MODELS
from mmengine.runner import Runner
from torch import nn

from kpu_mm.engine.atomic_checkpoints import from_plain, only_run, to_plain
from kpu_mm.engine.checkpoint_hooks import AtomicCheckpointHook
from kpu_mm.registry import RUNNERS

NUMBER = itertools.count()


@MODELS.register_module(name='RunnerToy')
class Toy(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 1)

    def train_step(self, data, optim_wrapper):
        loss = self.layer(torch.tensor(data)).square().mean()
        optim_wrapper.update_params(loss)
        return dict(loss=loss.detach())


def runner(work_dir, kind='KPURunner', iters=4, **options):
    settings = dict(
        model=dict(type='RunnerToy'),
        work_dir=str(work_dir),
        train_dataloader=dict(
            dataset=[[1.0, 2.0]] * 8,
            sampler=dict(type='InfiniteSampler', shuffle=False),
            batch_size=2,
            collate_fn=dict(type='pseudo_collate'),
        ),
        train_cfg=dict(by_epoch=False, max_iters=iters, val_interval=100),
        optim_wrapper=dict(optimizer=dict(type='AdamW', lr=0.1)),
        param_scheduler=options.pop(
            'param_scheduler', dict(type='LinearLR', by_epoch=False, end=9)
        ),
        default_hooks=dict(
            checkpoint=dict(
                type=options.pop('hook', 'CheckpointHook'),
                by_epoch=False,
                interval=2,
                max_keep_ckpts=options.pop('keep', -1),
            ),
            logger=dict(type='LoggerHook', interval=1),
        ),
        # runners of one name share a message hub
        experiment_name=f'run{next(NUMBER)}',
        randomness=dict(seed=0),
        **options,
    )
    if kind == 'Runner':
        return Runner(**settings)
    return RUNNERS.build(dict(settings, runner_type=f'kpu_mm.{kind}'))


def damage(path):
    """Flip one bit in the middle of a weight."""
    content = bytearray(path.read_bytes())
    weight = torch.load(path, weights_only=True)['state_dict']['layer.weight']
    place = content.index(weight.numpy().tobytes()) + 3
    content[place] ^= 1
    path.write_bytes(content)


def test_checkpoints_need_no_list_of_safe_globals(tmp_path):
    run = runner(tmp_path)
    run.train()
    saved = torch.load(tmp_path / 'iter_4.pth', weights_only=True)
    history = saved['message_hub']['log_scalars']['train/loss']
    expected, _ = run.message_hub.get_scalar('train/loss').data
    assert np.array_equal(history['log_history'].numpy(), expected)


@pytest.mark.parametrize('kind', ['KPURunner', 'Runner'])
@pytest.mark.parametrize('anneal', ['cos', 'linear'])
def test_resumes_the_one_cycle_schedule(tmp_path, kind, anneal):
    """MMEngine saves a function in its state."""
    schedule = dict(
        type='OneCycleLR', eta_max=0.1, total_steps=8, anneal_strategy=anneal, by_epoch=False
    )
    whole = runner(tmp_path, kind, 6, param_scheduler=schedule)
    whole.train()
    start = dict(load_from=str(tmp_path / 'iter_2.pth'), resume=True)
    resumed = runner(tmp_path / 'resumed', 'KPURunner', 6, param_scheduler=schedule, **start)
    resumed.train()
    rates = [run.optim_wrapper.get_lr()['lr'] for run in (whole, resumed)]
    assert rates[0] == rates[1]
    assert torch.equal(whole.model.layer.weight, resumed.model.layer.weight)


@pytest.mark.parametrize('first', ['KPURunner', 'Runner'])
def test_resumes_weights_and_histories(tmp_path, first):
    whole = runner(tmp_path / 'whole', iters=6)
    whole.train()
    runner(tmp_path / 'half', first, iters=4).train()
    half = runner(tmp_path / 'half', iters=6, resume=True)
    half.train()
    for a, b in zip(whole.model.parameters(), half.model.parameters(), strict=True):
        assert torch.equal(a, b)
    for run in (whole, half):
        assert isinstance(run.message_hub.get_scalar('train/loss'), HistoryBuffer)
    a, b = (r.message_hub.get_scalar('train/loss').data for r in (whole, half))
    assert np.array_equal(a[0], b[0])
    assert np.array_equal(a[1], b[1])


def test_histories_survive_exactly():
    values = np.random.default_rng(3).normal(size=7)
    buffer = HistoryBuffer(list(values), [1] * 7, max_length=9)
    checkpoint = dict(
        meta=dict(best=np.float64(values[0])), message_hub=dict(log_scalars=dict(loss=buffer))
    )
    to_plain(checkpoint)
    assert type(checkpoint['meta']['best']) is float
    from_plain(checkpoint)
    found = checkpoint['message_hub']['log_scalars']['loss']
    assert found.max_length == 9
    for a, b in zip(found.data, buffer.data, strict=True):
        assert a.dtype == b.dtype
        assert np.array_equal(a, b)


@pytest.mark.parametrize('harm', ['bit', 'zip', 'folder', 'cut'])
def test_the_next_older_whole_checkpoint_is_taken(tmp_path, harm, capfd):
    runner(tmp_path).train()
    newest = tmp_path / 'iter_4.pth'
    if harm == 'bit':
        damage(newest)
    elif harm == 'cut':
        os.truncate(newest, newest.stat().st_size // 2)
    else:
        newest.unlink()
        if harm == 'folder':
            newest.mkdir()
        else:
            with zipfile.ZipFile(newest, 'w') as archive:
                archive.writestr('a.txt', 'no checkpoint')
    run = runner(tmp_path, iters=4, resume=True)
    run.load_or_resume()
    assert run.iter == 2
    log = ''.join(p.read_text() for p in tmp_path.rglob('*.log'))
    assert f'{newest} is' in log
    assert 'Passing over it' in log


def test_the_best_of_another_run_stays(tmp_path):
    hook = AtomicCheckpointHook(interval=2, by_epoch=False, save_best='acc')
    for folder, kept in ((tmp_path, True), (tmp_path / 'other', False)):
        run = runner(tmp_path)
        best = str(folder / 'best_acc_iter_2.pth')
        run.message_hub.update_info('best_ckpt', best)
        hook.before_train(run)
        assert hook.best_ckpt_path == (best if kept else None)


def test_no_whole_checkpoint_is_no_new_start(tmp_path):
    runner(tmp_path).train()
    for path in tmp_path.glob('*.pth'):
        damage(path)
    before = {path: path.read_bytes() for path in tmp_path.glob('*.pth')}
    with pytest.raises(RuntimeError, match='None of the 2 checkpoints'):
        runner(tmp_path, resume=True).train()
    assert before == {p: p.read_bytes() for p in tmp_path.glob('*.pth')}


@pytest.mark.parametrize('name', ['last_checkpoint', 'best_accuracy_iter_4.pth', 'iter_4.pt'])
def test_other_checkpoints_are_no_new_start(tmp_path, name):
    (tmp_path / name).write_text('iter_4.pth')
    with pytest.raises(RuntimeError, match=rf'but {name}: pass the one .*leave --resume out'):
        runner(tmp_path, resume=True).train()


def test_a_run_killed_in_its_first_checkpoint_starts_anew(tmp_path):
    (tmp_path / 'iter_2.pth.partial').write_text('half')
    runner(tmp_path, resume=True).train()
    assert (tmp_path / 'iter_4.pth').is_file()


def test_auto_starts_with_given_weights_and_resumes_from_then_on(tmp_path):
    runner(tmp_path / 'first', iters=4).train()
    weights = str(tmp_path / 'first' / 'iter_4.pth')
    given = dict(load_from=weights, resume='auto')
    start = runner(tmp_path / 'second', iters=2, **given)
    start.load_or_resume()
    saved = torch.load(weights, weights_only=True)['state_dict']
    assert start.iter == 0
    for name, value in start.model.state_dict().items():
        assert torch.equal(value, saved[name])
    log = ''.join(p.read_text() for p in (tmp_path / 'second').rglob('*.log'))
    assert f'training starts with the weights of {weights}.' in log
    start.train()
    resumed = runner(tmp_path / 'second', iters=4, **given)
    resumed.load_or_resume()
    assert resumed.iter == 2


def test_weights_alone_are_no_state_of_a_run(tmp_path):
    path = tmp_path / 'weights.pth'
    model = runner(tmp_path / 'a').model
    for content in (model.state_dict(), dict(state_dict=model.state_dict(), meta=dict())):
        torch.save(content, path)
        with pytest.raises(RuntimeError, match=r'weights\.pth.*pass it as load_from'):
            runner(tmp_path / 'b', load_from=str(path), resume=True).train()


def test_a_damaged_checkpoint_that_is_named_is_refused(tmp_path):
    runner(tmp_path).train()
    path = tmp_path / 'iter_4.pth'
    damage(path)
    for resume in (False, True):
        run = runner(tmp_path, load_from=str(path), resume=resume)
        with pytest.raises(RuntimeError, match=r'iter_4\.pth.* checksum'):
            run.train()


def test_legacy_format_is_named(tmp_path):
    path = tmp_path / 'old.pth'
    torch.save({}, path, _use_new_zipfile_serialization=False)
    with pytest.raises(RuntimeError, match=r'before 1\.6.*convert it'):
        runner(tmp_path, load_from=str(path)).train()


HOLD = """
import sys, time
from pathlib import Path
from kpu_mm.engine.atomic_checkpoints import only_run
with only_run(Path(sys.argv[1])):
    print('held', flush=True)
    time.sleep(60)
"""


def test_one_run_at_a_time(tmp_path):
    other = subprocess.Popen(
        [sys.executable, '-c', HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert 'held' in other.stdout.readline()
        with pytest.raises(RuntimeError, match='Another run is training in'):
            runner(tmp_path).train()
        assert not list(tmp_path.glob('*.pth'))
    finally:
        other.kill()
        other.wait()
    with only_run(tmp_path):
        pass


@pytest.mark.parametrize('code', [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EIO])
def test_a_file_system_without_locks(tmp_path, monkeypatch, code):
    def lockf(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, 'lockf', lockf)
    run = runner(tmp_path)
    if code == errno.EIO:
        with pytest.raises(OSError, match=os.strerror(code)):
            run.train()
        return
    run.train()
    assert (tmp_path / 'iter_4.pth').is_file()
    log = ''.join(p.read_text() for p in tmp_path.rglob('*.log'))
    assert f'.lock cannot be locked, as the file system has no locks ({os.strerror(code)})' in log


def test_a_full_disk_is_named(tmp_path):
    (tmp_path / 'iter_2.pth.partial').symlink_to('/dev/full')
    with pytest.raises(RuntimeError, match=r'iter_2\.pth cannot be written'):
        runner(tmp_path).train()


def test_the_stock_hook_keeps_two(tmp_path):
    runner(tmp_path, keep=1, iters=6).train()
    found = {path.name for path in tmp_path.glob('*.pth')}
    assert found == {'iter_4.pth', 'iter_6.pth'}


@pytest.mark.parametrize('keep', [1, 2])
def test_old_checkpoints_go_when_the_new_one_is_there(tmp_path, monkeypatch, keep):
    """What is on disk whenever a checkpoint is complete."""
    seen = []
    replace = Path.replace

    def look(self, target):
        found = replace(self, target)
        seen.append(sorted(p.name for p in tmp_path.glob('*.pth')))
        return found

    monkeypatch.setattr(Path, 'replace', look)
    hook = 'kpu_mm.AtomicCheckpointHook'
    run = runner(tmp_path, keep=keep, iters=6, hook=hook)
    run.train()
    monkeypatch.undo()
    names = [f'iter_{i}.pth' for i in (2, 4, 6)]
    # twice each: the checkpoint, then last_checkpoint
    assert seen[2:4] == [names[:2]] * 2
    assert seen[4:] == [names[2 - keep :]] * 2
    assert {p.name for p in tmp_path.glob('*.pth')} == set(names[-keep:])
    last = (tmp_path / 'last_checkpoint').read_text()
    assert last == str(tmp_path / 'iter_6.pth')
    # a resumed run knows what it has to delete
    runner(tmp_path, keep=keep, iters=8, hook=hook, resume=True).train()
    expected = [*names, 'iter_8.pth'][-keep:]
    assert {p.name for p in tmp_path.glob('*.pth')} == set(expected)
