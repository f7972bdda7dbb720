"""Write the models of configs/distill/kpu_vitb.py with random weights.

    python benchmarks/random_models.py FOLDER

FOLDER gets sentinel, clip and grounding_dino in the released architectures
(their text towers are small: distillation drops them), scikit-image's
photographs, and config.py, the paper's run with small batches and images for
a CPU. About 850 MB.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import open_clip
import skimage
import torch
from safetensors.torch import save_file
from transformers import (
    BertConfig,
    Dinov2Config,
    Dinov2Model,
    GroundingDinoConfig,
    GroundingDinoForObjectDetection,
    SwinConfig,
)

ROOT = Path(__file__).parents[1]
PHOTOGRAPHS = ('astronaut.png', 'chelsea.png', 'coffee.png', 'rocket.jpg')
IMAGENET = dict(image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.225])
CONFIG = """_base_ = {base!r}
photos = dict(type='kpu_mm.FolderSource', root={photos!r})
model = dict(
    student=dict(
        sentinel={sentinel!r}, norm_cfg=dict(_delete_=True, type='BN')),
    teachers=dict(
        clip=dict(_delete_=True, type='kpu_mm.CLIPTeacher', model={clip!r}),
        grounding_dino=dict(source={grounding_dino!r})),
)
train_dataloader = dict(
    clip=dict(batch_size=1, num_workers=1,
              dataset=dict(sources=[photos], weights=None)),
    grounding_dino=dict(
        batch_size=1, num_workers=1,
        dataset=dict(sources=[photos], weights=None, pipeline=[
            dict(type='kpu_mm.DecodeResize', shortest=128, longest=213),
            dict(type='mmcv.RandomFlip', prob=0.5),
            dict(type='kpu_mm.PackImage')])),
)
optim_wrapper = dict(type='OptimWrapper')
"""


def write_photographs(folder: Path) -> None:
    """Copy some of those that scikit-image ships."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in PHOTOGRAPHS:
        shutil.copy(Path(skimage.__file__).parent / 'data' / name, folder)


def save_transformers(model: torch.nn.Module, folder: Path) -> None:
    """Save as released models are, with the input's mean and deviation."""
    model.save_pretrained(folder)
    (folder / 'preprocessor_config.json').write_text(json.dumps(IMAGENET))


def write_clip(folder: Path) -> None:
    """CLIP ViT-B/16 as open_clip's `local-dir:` folder."""
    config = open_clip.get_model_config('ViT-B-16-quickgelu')
    config['text_cfg'].update(width=64, heads=1, layers=1)
    folder.mkdir(parents=True)
    weights = open_clip.CLIP(**config).state_dict()
    save_file(weights, folder / 'open_clip_model.safetensors')
    preprocess = dict(
        mean=list(open_clip.OPENAI_DATASET_MEAN), std=list(open_clip.OPENAI_DATASET_STD)
    )
    (folder / 'open_clip_config.json').write_text(
        json.dumps(dict(model_cfg=config, preprocess_cfg=preprocess))
    )


def write_grounding_dino(folder: Path) -> None:
    """GroundingDINO tiny: a Swin-T, three of whose stages are read."""
    bert = BertConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64
    )
    config = GroundingDinoConfig(
        backbone_config=SwinConfig(window_size=7, out_indices=[2, 3, 4]),
        text_config=bert,
        encoder_layers=1,
        decoder_layers=1,
    )
    save_transformers(GroundingDinoForObjectDetection(config), folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('folder', type=Path)
    folder = parser.parse_args().folder.resolve()
    torch.manual_seed(0)
    sentinel = Dinov2Model(Dinov2Config(image_size=518))
    save_transformers(sentinel, folder / 'sentinel')
    write_clip(folder / 'clip')
    write_grounding_dino(folder / 'grounding_dino')
    write_photographs(folder / 'photos')
    text = CONFIG.format(
        base=str(ROOT / 'configs' / 'distill' / 'kpu_vitb.py'),
        photos=str(folder / 'photos'),
        sentinel=str(folder / 'sentinel'),
        clip=f'local-dir:{folder / "clip"}',
        grounding_dino=str(folder / 'grounding_dino'),
    )
    (folder / 'config.py').write_text(text)
    print(folder / 'config.py')


if __name__ == '__main__':
    main()
