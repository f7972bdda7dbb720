"""Finished models in the forms in which the libraries load them."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import open_clip
from safetensors.torch import save_file
from transformers import (
    Dinov2Model,
    GroundingDinoForObjectDetection,
    GroundingDinoImageProcessor,
    GroundingDinoProcessor,
)

from . import micro_clip
from .captions import caption_tokenizer, detection_tokenizer
from .dense_heads import MEAN, STD
from .scene_pool import SIZE


def export_grounding_dino(
    detector: GroundingDinoForObjectDetection, folder: Path
) -> None:
    """Write weights as fp16, config, processor and tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    _half(detector).save_pretrained(folder)
    images = GroundingDinoImageProcessor(
        size={'shortest_edge': SIZE, 'longest_edge': 2 * SIZE}
    )
    GroundingDinoProcessor(
        images, detection_tokenizer(folder)
    ).save_pretrained(folder)


def export_sentinel(model: Dinov2Model, folder: Path) -> None:
    """Write weights as fp16, config, mean and deviation of the input."""
    _half(model).save_pretrained(folder)
    _write_json(
        folder / 'preprocessor_config.json',
        {'image_mean': MEAN, 'image_std': STD},
    )


def export_clip(model: open_clip.CLIP, folder: Path) -> None:
    """Write weights as fp16, config and tokenizer for ``local-dir:``."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(
        {
            name: v.contiguous()
            for name, v in _half(model).state_dict().items()
        },
        folder / 'open_clip_model.safetensors',
    )
    preprocess = {
        'mean': open_clip.OPENAI_DATASET_MEAN,
        'std': open_clip.OPENAI_DATASET_STD,
        'interpolation': 'bicubic',
        'resize_mode': 'squash',
    }
    _write_json(
        folder / 'open_clip_config.json',
        {'model_cfg': micro_clip.CONFIG, 'preprocess_cfg': preprocess},
    )
    caption_tokenizer().save_pretrained(folder)


def write_card(
    folder: Path,
    title: str,
    text: str,
    facts: Mapping[str, Any],
    scores: Mapping[str, float],
) -> None:
    """Write README.md beside the weights.

    Args:
        folder: The model's.
        title: Its name.
        text: What it is and how it learnt.
        facts: Data, command, seed and so on.
        scores: Name to value, of the files as they are loaded.
    """
    weights = next(folder.glob('*.safetensors'))
    weights.chmod(0o644)
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    rows = {
        **facts,
        'weights': f'`{weights.name}`, {weights.stat().st_size / 1e6:.2f} MB',
        'sha256': f'`{digest}`',
    }
    lines = [f'# {title}', '', text, '', '| | |', '| --- | --- |']
    lines += [f'| {name} | {value} |' for name, value in rows.items()]
    lines += ['', '| score on test digits and test photographs | |']
    lines += ['| --- | --- |']
    lines += [f'| {name} | {value:.3f} |' for name, value in scores.items()]
    (folder / 'README.md').write_text('\n'.join(lines) + '\n')


def _half(model: Any) -> Any:
    return copy.deepcopy(model).eval().half()


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=2) + '\n')
