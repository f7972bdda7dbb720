import json

import pytest
from mmengine.config import Config

from kpu_mm.analysis import first_batches, measure_agreement
from tests.runs import run_tool

TOOL = 'analysis_tools/agreement.py'


def test_table_and_files(distilled, distilled_run, tmp_path):
    done = run_tool(
        TOOL,
        *(distilled_run, distilled[1], '--num-images', 6, '--out', tmp_path),
    )
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / 'agreement.json').read_text())
    streams = Config.fromfile(distilled_run).train_dataloader
    for name, stream in streams.items():
        expected = measure_agreement(
            distilled[2], name, first_batches(name, stream, 6)
        )
        for output, values in report['teachers'][name].items():
            # another process, other sums of float32
            assert values == pytest.approx(expected[output], rel=1e-3)
    assert (tmp_path / 'agreement.md').read_text() in done.stdout
    assert (tmp_path / 'agreement.png').stat().st_size > 5000


@pytest.mark.parametrize(
    ('arguments', 'sentence'),
    [
        (['nothing.pth'], "'nothing.pth' does not exist"),
        (['--num-images', '0'], 'no whole number from 1 on'),
        (['--device', 'abacus'], "'abacus' is no device"),
    ],
)
def test_one_sentence(distilled, distilled_run, arguments, sentence):
    if 'nothing.pth' not in arguments:
        arguments = [distilled[1], *arguments]
    done = run_tool(TOOL, distilled_run, *arguments)
    assert done.returncode == 2
    assert sentence in done.stderr.splitlines()[-1]


def test_needs_the_term(distilled, distilled_run, tmp_path):
    config, checkpoint, _ = distilled
    path = tmp_path / 'config.py'
    path.write_text(
        f'_base_ = {str(distilled_run)!r}\nmodel = dict(terms=dict(t2s=1.0))\n'
    )
    done = run_tool(TOOL, path, checkpoint)
    assert done.returncode == 2
    # the checkpoint has more than the config asks for
    assert 'does not belong to the config' in done.stderr.splitlines()[-1]
