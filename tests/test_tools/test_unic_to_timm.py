import argparse
import runpy
import sys
from pathlib import Path

import pytest
import timm
import torch

from kpu_mm.models.teachers import TimmTeacher

ROOT = Path(__file__).parents[2]
TOOL = ROOT / 'tools' / 'model_converters' / 'unic_to_timm.py'
NAME = 'vit_base_patch16_224.mae'
SMALL = dict(depth=2, embed_dim=48, num_heads=4)


@pytest.fixture
def convert(monkeypatch):
    def run(*arguments):
        monkeypatch.setattr(sys, 'argv', [str(TOOL), *map(str, arguments)])
        runpy.run_path(str(TOOL), run_name='__main__')

    return run


@torch.no_grad()
def test_converted_checkpoint_is_the_encoder(convert, tmp_path):
    torch.manual_seed(0)
    model = timm.create_model(NAME, **SMALL).eval()
    for p in model.parameters():
        p += 0.1 * torch.randn_like(p)
    state = {'module.encoder.mask_token': torch.zeros(1, 48)}
    for key, value in model.state_dict().items():
        name = key.replace('blocks.', 'blocks.0.')  # as chunked
        state[f'module.encoder.{name}'] = value
    state['module.lp.heads.dino.cls.0.layers.0.weight'] = torch.zeros(2, 2)
    args = argparse.Namespace(arch='vit_base', patch_size=16)
    torch.save(dict(model=state, args=args, epoch=1), tmp_path / 'unic.pth')
    out = tmp_path / 'sub' / 'unic.safetensors'
    convert(tmp_path / 'unic.pth', out)
    teacher = TimmTeacher(NAME, str(out), options=SMALL)
    images = torch.rand(1, 3, 224, 224) * 255
    tokens = model.forward_features(teacher.prepare(images)[0])
    assert torch.equal(teacher(images).summary, tokens[:, 0])


def test_refuses_another_file(convert, tmp_path, capsys):
    torch.save(dict(model={'a': torch.zeros(1)}), tmp_path / 'a.pth')
    for name, message in (
        ('a.pth', 'no weights named encoder.'),
        ('missing.pth', 'does not exist'),
    ):
        with pytest.raises(SystemExit):
            convert(tmp_path / name, tmp_path / 'b.safetensors')
        assert message in capsys.readouterr().err
