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
