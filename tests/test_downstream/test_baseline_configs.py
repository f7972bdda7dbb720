"""The rows of the paper's table differ by their backbones alone."""

from pathlib import Path

import pytest
import timm
import torch
from mmengine.config import Config
from safetensors.torch import save_file
from transformers import SwinConfig

from kpu_mm.registry import MODELS

CONFIGS = Path(__file__).parents[2] / 'configs'
KPU = {
    'ade20k': 'upernet_kpu-vitb_frozen-80k',
    'coco': 'mask-dino_kpu-vitb_frozen-80k',
    'imagenet': 'linear_kpu-vitb',
}
ROWS = sorted(
    path
    for task in KPU
    for row in ('dinov2', 'clip', 'grounding-dino', 'mae', 'radio', 'unic')
    for path in (CONFIGS / 'downstream' / task).glob(f'*_{row}-*.py')
    if 'adapter' not in path.stem and 'finetune' not in path.stem
)
# Widths of summaries other than 768. That of Swin-B is its coarsest map's.
SUMMARIES = {'clip': 512, 'grounding-dino': SwinConfig(embed_dim=128).hidden_size}


@pytest.mark.parametrize('path', ROWS, ids=lambda p: p.stem)
def test_row_differs_by_its_backbone(path):
    task = path.parent.name
    row = Config.fromfile(path).to_dict()
    kpu = Config.fromfile(path.with_stem(KPU[task])).to_dict()
    backbone = row['model'].pop('backbone')
    assert backbone['type'] == 'kpu_mm.TeacherBackbone'
    del kpu['model']['backbone']
    assert row.pop('teacher_backbone')
    if task == 'imagenet':
        assert backbone['out_type'] == 'summary'
        width = row['model']['head'].pop('in_channels')
        teacher = path.stem.split('_')[1].rpartition('-')[0]
        assert width == SUMMARIES.get(teacher, 768)
        del kpu['model']['head']['in_channels']
    else:
        assert backbone['embed_dims'] == 768
    assert row == kpu


def test_every_reproduced_row_is_there():
    assert len(ROWS) == 17  # UNIC has no COCO result


@pytest.fixture
def small(dinov2_dir, clip_dir, grounding_dino_dir, tmp_path):
    """The same teachers with tiny weights."""

    def shrink(name, teacher):
        if 'source' in teacher:
            own = dict(dinov2=dinov2_dir, grounding_dino=grounding_dino_dir)
            return dict(teacher, source=str(own[name]))
        if name == 'clip':
            return dict(type=teacher.type, model=f'local-dir:{clip_dir}')
        options = dict(teacher.options, depth=1, embed_dim=48, num_heads=4)
        torch.manual_seed(0)
        model = timm.create_model(teacher.model, **options)
        checkpoint = str(tmp_path / 'model.safetensors')
        save_file(model.state_dict(), checkpoint)
        return dict(teacher, checkpoint=checkpoint, options=options)

    return shrink


@pytest.mark.parametrize(
    'path', sorted((CONFIGS / '_base_' / 'models' / 'teachers').glob('*.py')), ids=lambda p: p.stem
)
def test_teacher_builds(path, small):
    cfg = Config.fromfile(path).teacher_backbone
    cfg.teacher = small(path.stem, cfg.teacher)
    backbone = MODELS.build(dict(cfg, embed_dims=8))
    maps = backbone(torch.randn(1, 3, 96, 80))
    assert [tuple(m.shape) for m in maps] == [
        (1, 8, 24, 20),
        (1, 8, 12, 10),
        (1, 8, 6, 5),
        (1, 8, 3, 3),
    ]


@pytest.mark.parametrize('task', KPU)
def test_base_a_differs_by_its_backbone(task):
    kpu = CONFIGS / 'downstream' / task / f'{KPU[task]}.py'
    row = Config.fromfile(kpu.with_stem(kpu.stem.replace('kpu-vitb', 'base-a-vitb'))).to_dict()
    kpu = Config.fromfile(kpu).to_dict()
    backbone = row['model'].pop('backbone')
    out_type = kpu['model'].pop('backbone').get('out_type')
    assert backbone.pop('out_type', None) == out_type
    assert backbone == row.pop('base_a_backbone')
    assert row == kpu
    student = Config.fromfile(CONFIGS / 'distill' / 'base-a_vitb.py').model
    assert backbone['sentinel'] == student.student.sentinel
    assert backbone['type'] == student.student.type
