"""The recipes' models at a quarter of their width, with random weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import open_clip
import timm
from mmengine.config import Config
from safetensors.torch import save_file
from transformers import (
    AutoConfig,
    AutoModel,
    BertConfig,
    DPTConfig,
    DPTModel,
    GroundingDinoConfig,
    GroundingDinoForObjectDetection,
    Sam2VisionConfig,
    Sam2VisionModel,
    SwinConfig,
)

VIT_B = dict(hidden_size=192, num_hidden_layers=12, num_attention_heads=3)
# width, layers, channels of a head, patch, side
CLIPS = {
    'ViT-B-16-quickgelu': (192, 12, 64, 16, 224),
    'ViT-H-14-378-quickgelu': (320, 32, 80, 14, 378),
    'ViT-SO400M-14-SigLIP-384': (288, 27, 72, 14, 378),
    'ViT-B-16-SigLIP2-256': (192, 12, 64, 16, 256),
}
DINOS = {
    'facebook/dinov2-base': dict(model_type='dinov2', **VIT_B),
    'facebook/dinov3-vitb16-pretrain-lvd1689m': dict(
        model_type='dinov3_vit',
        patch_size=16,
        intermediate_size=768,
        num_register_tokens=4,
        **VIT_B,
    ),
    'facebook/dinov3-vitl16-pretrain-lvd1689m': dict(
        model_type='dinov3_vit',
        patch_size=16,
        hidden_size=256,
        intermediate_size=1024,
        num_hidden_layers=24,
        num_attention_heads=4,
        num_register_tokens=4,
    ),
    'facebook/dinov2-with-registers-large': dict(
        model_type='dinov2_with_registers',
        hidden_size=256,
        num_hidden_layers=24,
        num_attention_heads=4,
    ),
    'facebook/dinov2-with-registers-giant': dict(
        model_type='dinov2_with_registers',
        hidden_size=384,
        num_hidden_layers=40,
        num_attention_heads=6,
        use_swiglu_ffn=True,
    ),
}
DINO_SIZES = dict(image_size=518, patch_size=14)
SAM = dict(embed_dim=320, num_heads=4)
TIMM_WIDTHS = {
    'base': dict(embed_dim=192, num_heads=3),
    'large': dict(embed_dim=256, num_heads=4),
    'so400m': dict(embed_dim=288, num_heads=4),
}
NORMALISATION = dict(image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.225])


def shrink(cfg: Config, folder: Path) -> Config:
    """Put models of a quarter of the width in the places of a recipe's own.

    Args:
        cfg: The recipe.
        folder: Where their weights are written.
    """
    student = cfg.model.student
    if isinstance(student.sentinel, str):
        student.sentinel = dict(DINO_SIZES, **DINOS[student.sentinel])
    else:
        student.sentinel.update(VIT_B)
    if student.type == 'kpu_mm.KPUBackbone':
        student.inplanes = 16
    for key in ('hidden', 'last_hidden'):
        if key in cfg.model.projector:
            cfg.model.projector[key] //= 4
    for name, teacher in cfg.model.teachers.items():
        cfg.model.teachers[name] = _teacher(teacher, folder)
    return cfg


def _teacher(teacher: Any, folder: Path) -> dict[str, Any]:
    kind = teacher.type
    if kind == 'kpu_mm.MosaicTeacher':
        inner = _teacher(teacher.teacher, folder)
        return dict(type=kind, side=teacher.side // 2, teacher=inner)
    if kind == 'kpu_mm.CLIPTeacher':
        return dict(type=kind, model=f'local-dir:{_clip(teacher, folder)}')
    if kind == 'kpu_mm.TimmTeacher':
        return _timm(teacher, folder)
    place = folder / teacher.source.replace('/', '-')
    if not place.exists():
        if kind == 'kpu_mm.DINOTeacher':
            config = AutoConfig.for_model(**dict(DINO_SIZES, **DINOS[teacher.source]))
            AutoModel.from_config(config).save_pretrained(place)
        elif kind == 'kpu_mm.TransformersTeacher':
            build = _sam2 if 'sam2' in teacher.source else _dpt
            build().save_pretrained(place)
        else:
            _grounding_dino().save_pretrained(place)
        normalisation = json.dumps(NORMALISATION)
        (place / 'preprocessor_config.json').write_text(normalisation)
    if 'resolution' in teacher:
        half = tuple(side // 2 for side in teacher.resolution)
        return dict(type=kind, source=str(place), resolution=half)
    return dict(type=kind, source=str(place))


def _clip(teacher: Any, folder: Path) -> Path:
    place = folder / teacher.model
    if place.exists():
        return place
    width, layers, head, patch, side = CLIPS[teacher.model]
    config = dict(
        embed_dim=256,
        vision_cfg=dict(
            image_size=side, layers=layers, width=width, head_width=head, patch_size=patch
        ),
        # never run
        text_cfg=dict(width=32, heads=2, layers=1),
    )
    place.mkdir()
    save_file(open_clip.CLIP(**config).state_dict(), place / 'open_clip_model.safetensors')
    preprocess = dict(
        mean=list(open_clip.OPENAI_DATASET_MEAN), std=list(open_clip.OPENAI_DATASET_STD)
    )
    (place / 'open_clip_config.json').write_text(
        json.dumps(dict(model_cfg=config, preprocess_cfg=preprocess))
    )
    return place


def _timm(teacher: Any, folder: Path) -> dict[str, Any]:
    sam = 'samvit' in teacher.model
    width = next((w for name, w in TIMM_WIDTHS.items() if name in teacher.model), SAM)
    options = {**teacher.get('options', {}), **width}
    size = (512, 512) if sam else (224, 224)
    path = folder / f'{teacher.model}.safetensors'
    if not path.exists():
        model = timm.create_model(teacher.model, img_size=size, **options)
        state = model.state_dict()
        save_file({k: v.contiguous() for k, v in state.items()}, path)
    shrunk = dict(checkpoint=str(path), options=options)
    any_size = options.get('dynamic_img_size', 'naflex' in teacher.model)
    return dict(teacher, **shrunk, resolution=None if any_size else size)


def _grounding_dino() -> GroundingDinoForObjectDetection:
    # only its image backbone is run
    return GroundingDinoForObjectDetection(
        GroundingDinoConfig(
            backbone_config=SwinConfig(
                embed_dim=24,
                depths=[2, 2, 6, 2],
                num_heads=[1, 2, 4, 8],
                window_size=7,
                out_indices=[2, 3, 4],
            ),
            text_config=BertConfig(
                hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64
            ),
            d_model=32,
            encoder_layers=1,
            decoder_layers=1,
            encoder_attention_heads=4,
            decoder_attention_heads=4,
            encoder_ffn_dim=64,
            decoder_ffn_dim=64,
            num_queries=20,
        )
    )


def _dpt() -> DPTModel:
    """The encoder of DPT's large one."""
    return DPTModel(
        DPTConfig(
            hidden_size=256,
            intermediate_size=1024,
            num_hidden_layers=24,
            num_attention_heads=4,
            neck_hidden_sizes=[8] * 4,
            fusion_hidden_size=8,
            backbone_out_indices=[5, 11, 17, 23],
        ),
        add_pooling_layer=False,
    )


def _sam2() -> Sam2VisionModel:
    """The image encoder of SAM 2.1's base plus."""
    widths = [28, 56, 112, 224]
    backbone = dict(
        hidden_size=widths[0],
        window_positional_embedding_background_size=[14, 14],
        blocks_per_stage=[2, 3, 16, 3],
        embed_dim_per_stage=widths,
        num_attention_heads_per_stage=[2, 4, 8, 16],
        global_attention_blocks=[12, 16, 20],
    )
    config = Sam2VisionConfig(backbone, backbone_channel_list=widths[::-1], fpn_hidden_size=64)
    return Sam2VisionModel(config)
