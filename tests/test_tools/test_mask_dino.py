import os
import pickle
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.mask_dino_pair import build_reference, head_config
from tests.references.mask_dino.backbones import TorchvisionR50

ROOT = Path(__file__).parents[2]
TOOL = ROOT / 'tools' / 'model_converters' / 'mask_dino.py'
OPTIONS = dict(channels=TorchvisionR50.channels, layout='3s', depth=1)


@pytest.fixture(scope='module')
def official():
    head = build_reference(**OPTIONS).state_dict()
    return {
        **TorchvisionR50().official_state(),
        **{f'sem_seg_head.{name}': v for name, v in head.items()},
    }


@pytest.fixture
def config(tmp_path):
    head = dict(head_config(**OPTIONS), type='kpu_mm.MaskDINOHead')
    backbone = dict(type='mmdet.ResNet', depth=50)
    model = dict(type='kpu_mm.MaskDINO', backbone=backbone, bbox_head=head)
    path = tmp_path / 'config.py'
    path.write_text(f'model = {model!r}\n')
    return path


@pytest.fixture
def convert(monkeypatch, capsys):
    """Run the tool in this process: exit code and what it printed."""

    def run(*arguments):
        monkeypatch.setattr(sys, 'argv', [str(TOOL), *map(str, arguments)])
        # the tool sets it for its process
        monkeypatch.setenv('TORCH_FORCE_WEIGHTS_ONLY_LOAD', '1')
        code = 0
        try:
            runpy.run_path(str(TOOL), run_name='__main__')
        except SystemExit as end:
            code = end.code
        return code, *capsys.readouterr()

    return run


def check(out, official):
    weights = torch.load(out, weights_only=True)['state_dict']
    for ours, name in (
        ('backbone.layer1.0.downsample.0', 'backbone.res2.0.shortcut'),
        ('bbox_head.predictor.cls', 'sem_seg_head.predictor.class_embed'),
    ):
        assert torch.equal(weights[f'{ours}.weight'], official[f'{name}.weight'])


@pytest.mark.slow
def test_a_training_s_checkpoint(official, config, tmp_path):
    source, out = tmp_path / 'official.pth', tmp_path / 'out.pth'
    torch.save({'model': official, 'iteration': 368750}, source)
    done = subprocess.run(
        [sys.executable, TOOL, config, source, out],
        env=dict(os.environ, PYTHONPATH=str(ROOT)),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert '3 levels (0 below the backbone' in done.stdout
    check(out, official)


def test_arrays_of_the_model_zoo(official, config, tmp_path, convert):
    source, out = tmp_path / 'official.pkl', tmp_path / 'out.pth'
    arrays = {name: v.numpy() for name, v in official.items()}
    source.write_bytes(pickle.dumps({'model': arrays}, protocol=2))
    code, _, errors = convert(config, source, out)
    assert code == 0, errors
    check(out, official)


def test_one_sentence_for_another_architecture(official, config, tmp_path, convert):
    source, out = tmp_path / 'official.pth', tmp_path / 'out.pth'
    torch.save({'model': official}, source)
    code, printed, errors = convert(
        config, source, out, '--cfg-options', 'model.bbox_head.pixel_decoder.extra_level=True'
    )
    assert code == 2
    assert '3 levels' in printed
    assert 'level_embed (3, 32) -> (4, 32)' in errors.splitlines()[-1]
    assert not out.exists()


def test_an_existing_file_is_kept(config, tmp_path, convert):
    out = tmp_path / 'out.pth'
    out.write_text('mine')
    code, _, errors = convert(config, tmp_path / 'official.pth', out)
    assert code == 2 and 'exists' in errors
    assert out.read_text() == 'mine'
