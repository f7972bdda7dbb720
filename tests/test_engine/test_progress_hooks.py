import io
import json
from types import SimpleNamespace

from rich.console import Console

from kpu_mm.engine import progress_hooks
from kpu_mm.engine.progress_hooks import ProgressHook


def run(tmp_path, monkeypatch, terminal):
    screen = io.StringIO()

    def console(stderr):
        return Console(file=screen, force_terminal=terminal, width=80)

    monkeypatch.setattr(progress_hooks, 'Console', console)
    hook = ProgressHook()
    runner = SimpleNamespace(rank=0, iter=2, max_iters=5, work_dir=tmp_path)
    hook.before_train(runner)
    for i in (2, 3):
        hook.after_train_iter(runner, i)
    return hook, runner, screen


def test_a_resumed_run_goes_on_where_it_was(tmp_path, monkeypatch):
    hook, runner, screen = run(tmp_path, monkeypatch, True)
    (task,) = hook.bar.tasks
    assert (task.completed, task.total) == (4, 5)
    hook.after_train(runner)
    assert '4/5' in screen.getvalue()
    assert not (tmp_path / 'losses.png').exists()  # nothing was logged


def test_without_a_terminal_there_are_only_curves(tmp_path, monkeypatch):
    log = tmp_path / 'run' / 'vis_data'
    log.mkdir(parents=True)
    rows = [json.dumps({'step': i, 'loss': 3.0 - i, 's2t/clip': 1.0}) for i in range(3)]
    (log / 'scalars.json').write_text('\n'.join(rows))
    hook, runner, screen = run(tmp_path, monkeypatch, False)
    hook.after_train(runner)
    assert hook.bar is None and not screen.getvalue()
    assert (tmp_path / 'losses.png').stat().st_size > 1000
