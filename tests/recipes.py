"""Recipes in configs/distill at a size for tests."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
import torch
from mmengine.config import Config
from safetensors.torch import save_file

CONFIGS = Path(__file__).parents[1] / 'configs' / 'distill'
RECIPES = sorted(CONFIGS.glob('*.py'))
# fixtures of small models, without `_dir`
SMALL_MODELS = (
    'dinov2',
    'dinov3',
    'clip',
    'siglip',
    'grounding_dino',
    'mm_grounding_dino',
    'sam2',
    'dpt',
)
TINY_VIT = dict(depth=1, embed_dim=48, num_heads=4)


def shrink(cfg: Config, models: Mapping[str, Path], folder: Path) -> Config:
    """Put small models and images in the places of a recipe's own.

    Args:
        cfg: The recipe.
        models: Folders of small models: those of :data:`SMALL_MODELS`.
        folder: With ``images``; small checkpoints of timm go there.
    """
    student = cfg.model.student
    blocks = range(1, 5)
    if isinstance(student.sentinel, str):
        student.sentinel = str(models[_dino(student.sentinel)])
    else:
        student.sentinel.update(hidden_size=48, num_hidden_layers=4, num_attention_heads=4)
    if student.type == 'kpu_mm.KPUBackbone':
        student.inplanes = 8
    if 'blocks' in student:
        student.blocks = list(blocks)
        cfg.model.projector.update(num_blocks=len(blocks), last_hidden=32)
    projector = cfg.model.setdefault('projector', {})
    if 'num_heads' in projector:
        projector.num_heads = 4
    else:
        projector.hidden = 16
    for name, teacher in cfg.model.teachers.items():
        cfg.model.teachers[name] = _teacher(teacher, models, folder)
    for stream in cfg.train_dataloader.values():
        packs = stream.dataset.type == 'kpu_mm.TokenPacks'
        stream.update(batch_size=1 if packs else 2, num_workers=0)
        _dataset(stream.dataset, folder)
    return cfg


def _teacher(teacher: Any, models: Mapping[str, Path], folder: Path) -> dict[str, Any]:
    kind = teacher.type
    if kind == 'kpu_mm.MosaicTeacher':
        inner = _teacher(teacher.teacher, models, folder)
        return dict(type=kind, side=_size(teacher.side), teacher=inner)
    if kind == 'kpu_mm.CLIPTeacher':
        family = 'siglip' if 'SigLIP' in teacher.model else 'clip'
        return dict(type=kind, model=f'local-dir:{models[family]}')
    if kind == 'kpu_mm.DINOTeacher':
        return dict(type=kind, source=str(models[_dino(teacher.source)]))
    if kind == 'kpu_mm.GroundingDINOTeacher':
        family = 'mm_grounding_dino' if 'mm_' in teacher.source else 'grounding_dino'
        return dict(type=kind, source=str(models[family]))
    if kind == 'kpu_mm.TransformersTeacher':
        size = tuple(_size(side) for side in teacher.resolution)
        family = 'sam2' if 'sam2' in teacher.source else 'dpt'
        return dict(type=kind, source=str(models[family]), resolution=size)
    assert kind == 'kpu_mm.TimmTeacher'
    options = {**teacher.get('options', {}), **TINY_VIT}
    any_size = options.get('dynamic_img_size', 'naflex' in teacher.model)
    # whole patches of 14 or 16
    size = (_size(1024) if 'samvit' in teacher.model else 56 if any_size else 64,) * 2
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = timm.create_model(teacher.model, img_size=size, **options)
    path = folder / f'{teacher.model}.safetensors'
    if not path.exists():
        save_file({k: v.contiguous() for k, v in model.state_dict().items()}, path)
    shrunk = dict(checkpoint=str(path), options=options)
    return dict(teacher, **shrunk, resolution=None if any_size else size)


def _dino(source: str) -> str:
    return 'dinov3' if 'dinov3' in source else 'dinov2'


def _dataset(dataset: Any, folder: Path) -> None:
    if dataset.type == 'kpu_mm.MixedResolution':
        dataset.sizes = sorted({_size(size) for size in dataset.sizes})
        dataset = dataset.dataset
    elif dataset.type == 'kpu_mm.TokenPacks':
        # of 4 and 9 tokens
        dataset.update(sizes=[32, 48][: len(dataset.sizes)], tokens=12)
        dataset = dataset.dataset
    dataset.sources = dict(type='kpu_mm.FolderSource', root=str(folder / 'images'))
    dataset.weights = None
    decode = dataset.pipeline[0]
    if 'shortest' in decode:
        decode.update(shortest=64, longest=96)
    else:
        decode.size = 64 if decode.size == 224 else _size(decode.size)


def _size(size: int) -> int:
    """An eighth, in whole patches of 16: 1024 -> 128, 432 -> 48."""
    return max(32, size // 128 * 16)
