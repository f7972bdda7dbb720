import json

import pytest
import torch
from mmengine.config import Config

from kpu_mm.analysis.agreement import measure_agreement
from kpu_mm.analysis.batches import first_batches
from kpu_mm.registry import MODELS
from tests.runs import refusal_of, run_tool

TOOL = 'analysis_tools/agreement.py'


def test_table_and_files(distilled, distilled_run, tmp_path):
    done = run_tool(TOOL, *(distilled_run, distilled[1], '--num-images', 6, '--out', tmp_path))
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / 'agreement.json').read_text())
    streams = Config.fromfile(distilled_run).train_dataloader
    for name, stream in streams.items():
        expected = measure_agreement(distilled[2], name, first_batches(name, stream, 6))
        for output, values in report['teachers'][name].items():
            # another process, other sums of float32
            assert values == pytest.approx(expected[output], rel=1e-3)
    assert (tmp_path / 'agreement.md').read_text() in done.stdout
    assert (tmp_path / 'agreement.png').stat().st_size > 5000


def test_one_sentence(distilled, distilled_run, monkeypatch, capsys):
    for arguments, sentence in (
        (['nothing.pth'], "'nothing.pth' does not exist"),
        ([distilled[1], '--num-images', 0], 'no whole number from 1 on'),
        ([distilled[1], '--device', 'abacus'], "'abacus' is no device"),
    ):
        line = refusal_of(TOOL, [distilled_run, *arguments], monkeypatch, capsys)
        assert sentence in line


def test_needs_projectors(distilled, distilled_run, tmp_path, monkeypatch, capsys):
    model = MODELS.build(dict(distilled[0], terms=dict(t2s=1.0)))
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'part.pth')
    path = tmp_path / 'config.py'
    path.write_text(f'_base_ = {str(distilled_run)!r}\nmodel = dict(terms=dict(t2s=1.0))\n')
    line = refusal_of(TOOL, [path, tmp_path / 'part.pth'], monkeypatch, capsys)
    assert "model.terms has no 's2t'" in line
