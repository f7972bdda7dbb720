"""Norm layers of a student whose streams have two sizes."""

import torch
from mmengine.config import Config

from projects.micro_lab import norm_statistics as lab


def test_streams_have_two_sizes_and_padding():
    (streams,) = lab.batches(Config.fromfile(lab.CONFIG), scenes=1, count=1)
    assert streams['clip']['images'].shape[-2:] == (64, 64)
    assert max(streams['grounding_dino']['images'].shape[-2:]) == 96
    mask = streams['grounding_dino']['mask']
    assert 0.05 < (~mask).float().mean() < 0.5


def test_statistics_of_each_stream(monkeypatch):
    monkeypatch.setattr(lab, '_BATCHES', 2)
    config = Config.fromfile(lab.CONFIG)
    model = lab.train(config, 'BN', 1)
    first = model.student.prior.stem[1]
    inputs = []
    handle = first.register_forward_pre_hook(lambda _, args: inputs.append(args[0].detach()))
    lab.recalibrate(model, config, ['clip'])
    handle.remove()
    assert len(inputs) == 2
    expected = torch.stack([x.mean((0, 2, 3)) for x in inputs]).mean(0)
    torch.testing.assert_close(first.running_mean, expected)
    found = lab.agreement(model.eval(), config, ['clip'])
    assert set(found) == {'clip summary', 'clip map 0, 32 → 32'}
    assert all(-1 <= value <= 1 for value in found.values())
    torch.testing.assert_close(first.running_mean, expected)
