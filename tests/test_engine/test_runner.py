import pytest
import torch
from mmengine.runner import Runner

from kpu_mm.engine.runner import KPURunner


@pytest.mark.parametrize(
    ('env', 'gpu', 'precisions'),
    [(dict(tf32=True), True, ['high']), (dict(), True, ['highest']), (dict(tf32=True), False, [])],
)
def test_tf32_on_gpus(monkeypatch, env, gpu, precisions):
    given = []
    monkeypatch.setattr(Runner, 'setup_env', lambda self, env_cfg: None)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: gpu)
    monkeypatch.setattr(torch, 'set_float32_matmul_precision', given.append)
    KPURunner.setup_env(KPURunner.__new__(KPURunner), env)
    assert given == precisions


def test_none_leaves_out_a_hook(monkeypatch):
    given = []
    monkeypatch.setattr(Runner, 'register_default_hooks', lambda self, hooks: given.append(hooks))
    runner = KPURunner.__new__(KPURunner)
    # MMEngine takes None for its own names, and refuses it for others
    runner.register_default_hooks(dict(logger=None, norm_eval=None, machine=dict(type='A')))
    runner.register_default_hooks()
    assert given == [dict(logger=None, machine=dict(type='A')), {}]
