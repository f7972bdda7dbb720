"""Distil two small teachers into a small student on real photographs.

Runs on a CPU in a few minutes and needs no downloads. The teachers have
random weights from a fixed seed: the run shows that the whole way works, not
what trained teachers would teach.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np
import open_clip
import skimage
import torch
from PIL import Image
from safetensors.torch import save_file
from transformers import (
    BertConfig,
    Dinov2Config,
    Dinov2Model,
    GroundingDinoConfig,
    GroundingDinoForObjectDetection,
    SwinConfig,
)

mpl.use('Agg')
import matplotlib.pyplot as plt

TOOLS = Path(__file__).parent
CONFIG = TOOLS.parent / 'configs' / 'distill' / 'kpu_demo.py'
PHOTOGRAPHS = (
    'astronaut.png',
    'brick.png',
    'camera.png',
    'chelsea.png',
    'coffee.png',
    'coins.png',
    'grass.png',
    'gravel.png',
    'hubble_deep_field.jpg',
    'ihc.png',
    'motorcycle_left.png',
    'motorcycle_right.png',
    'retina.jpg',
    'rocket.jpg',
)
CLIP = dict(
    embed_dim=64,
    vision_cfg=dict(
        image_size=112, layers=3, width=96, head_width=32, patch_size=16
    ),
    text_cfg=dict(width=32, heads=2, layers=1),
)
IMAGENET = dict(
    image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.225]
)


def write_photographs(folder: Path) -> int:
    """Write what scikit-image ships as JPEG files of 512 pixels at most."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in PHOTOGRAPHS:
        with Image.open(Path(skimage.__file__).parent / 'data' / name) as file:
            image = file.convert('RGB')
        image.thumbnail((512, 512))
        image.save(folder / f'{Path(name).stem}.jpg', quality=90)
    return len(PHOTOGRAPHS)


def save_transformers(model: torch.nn.Module, folder: Path) -> None:
    """Save as released models are, with the input's mean and deviation."""
    model.save_pretrained(folder)
    (folder / 'preprocessor_config.json').write_text(json.dumps(IMAGENET))


def write_models(folder: Path) -> None:
    """Save sentinel and teachers of the libraries' own classes."""
    torch.manual_seed(0)
    save_transformers(
        Dinov2Model(
            Dinov2Config(
                hidden_size=96,
                num_hidden_layers=4,
                num_attention_heads=4,
                image_size=112,
                patch_size=14,
            )
        ),
        folder / 'sentinel',
    )
    save_transformers(
        GroundingDinoForObjectDetection(
            GroundingDinoConfig(
                backbone_config=SwinConfig(
                    embed_dim=24,
                    depths=[1, 1, 2, 1],
                    num_heads=[1, 2, 4, 8],
                    window_size=5,
                    out_indices=[2, 3, 4],
                ),
                text_config=BertConfig(
                    hidden_size=32,
                    num_hidden_layers=1,
                    num_attention_heads=2,
                    intermediate_size=64,
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
        ),
        folder / 'grounding_dino',
    )
    clip = folder / 'clip'
    clip.mkdir(parents=True, exist_ok=True)
    save_file(
        open_clip.CLIP(**CLIP).state_dict(),
        clip / 'open_clip_model.safetensors',
    )
    preprocess = dict(
        mean=list(open_clip.OPENAI_DATASET_MEAN),
        std=list(open_clip.OPENAI_DATASET_STD),
    )
    (clip / 'open_clip_config.json').write_text(
        json.dumps(dict(model_cfg=CLIP, preprocess_cfg=preprocess))
    )


def read_log(work_dir: Path) -> list[dict[str, float]]:
    """The newest run's logged values, one dict for each logged iteration."""
    path = sorted(work_dir.glob('*/vis_data/scalars.json'))[-1]
    return [json.loads(line) for line in path.read_text().splitlines()]


def draw_losses(log: list[dict[str, float]], path: Path) -> None:
    """Plot total and terms over iterations."""
    steps = [row['step'] for row in log]
    figure, axis = plt.subplots(figsize=(7, 4), layout='constrained')
    axis.plot(steps, [row['loss'] for row in log], 'k', lw=2, label='L_KPU')
    for key in [k for k in log[0] if k.split('/')[0] in ('s2t', 't2s', 'rec')]:
        axis.plot(steps, [row[key] for row in log], label=key)
    axis.set(xlabel='iteration', ylabel='loss', ylim=(0, None))
    axis.legend(ncols=2)
    figure.savefig(path, dpi=120)


def collect_pictures(work_dir: Path) -> list[Path]:
    """Copy the last PCA panels to the work directory."""
    pictures = []
    for stream in ('clip', 'grounding_dino'):
        panels = sorted(
            work_dir.glob(f'*/vis_data/vis_image/pca_{stream}_*.png'),
            key=lambda p: (p.parents[2].name, int(p.stem.rsplit('_', 1)[1])),
        )
        pictures.append(work_dir / f'pca_{stream}.png')
        shutil.copy(panels[-1], pictures[-1])
    return pictures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--work-dir', type=Path, default='work_dirs/demo')
    work_dir = parser.parse_args().work_dir.resolve()
    count = write_photographs(work_dir / 'photos')
    write_models(work_dir / 'models')
    print(
        f'{count} photographs of scikit-image, two teachers (CLIP and '
        'GroundingDINO, small, random weights from a fixed seed).'
    )
    env = dict(os.environ, KPU_MM_DEMO=str(work_dir))
    run = [sys.executable, str(TOOLS / 'train.py'), str(CONFIG)]
    subprocess.run([*run, '--work-dir', str(work_dir)], env=env, check=True)

    log = read_log(work_dir)
    first, last = log[0]['loss'], np.mean([row['loss'] for row in log[-3:]])
    draw_losses(log, work_dir / 'losses.png')
    pictures = collect_pictures(work_dir)
    checkpoint = work_dir / (work_dir / 'last_checkpoint').read_text()
    student = work_dir / 'student'
    shutil.rmtree(student, ignore_errors=True)
    export = [sys.executable, str(TOOLS / 'export.py'), str(CONFIG)]
    subprocess.run(
        [*export, str(checkpoint), str(student)], env=env, check=True
    )
    print(f'\nLoss {first:.3f} at the start, {last:.3f} at the end.')
    for what, path in [
        ('student', student),
        ('checkpoint', checkpoint),
        ('loss curves', work_dir / 'losses.png'),
        *[('image | teacher | student (PCA)', p) for p in pictures],
    ]:
        print(f'{what}: {path}')
    if not last < first:
        sys.exit('The loss did not fall: something is wrong.')


if __name__ == '__main__':
    main()
