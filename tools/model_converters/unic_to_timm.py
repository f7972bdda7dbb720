"""Rename the weights of a UNIC checkpoint as timm's ViT has them.

    python tools/model_converters/unic_to_timm.py unic.pth unic.safetensors

UNIC (https://arxiv.org/abs/2408.05088) is released with its training options
and its distillation heads; the encoder alone is written.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from kpu_mm.utils.command_line import refuse, tool_parser
from kpu_mm.weights.state_dict import load_state

PREFIX = 'encoder.'


def rename(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The encoder's weights under timm's names."""
    renamed = {}
    for name, value in state.items():
        name = name.removeprefix('module.')
        # the mask token belongs to DINOv2's own pre-training
        if not name.startswith(PREFIX) or name.endswith('.mask_token'):
            continue
        name = name.removeprefix(PREFIX)
        # one chunk of blocks: blocks.0.11.norm1 -> blocks.11.norm1
        name = re.sub(r'^blocks\.0\.(\d+\.)', r'blocks.\1', name)
        renamed[name] = value.contiguous()
    return renamed


def parse_args() -> argparse.Namespace:
    parser = tool_parser(__doc__)
    parser.add_argument('checkpoint', help='unic.pth')
    parser.add_argument('out', help='safetensors file to write')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    # the options are an argparse.Namespace, which holds data alone
    with torch.serialization.safe_globals([argparse.Namespace]):
        try:
            state = rename(load_state(args.checkpoint))
        except (OSError, RuntimeError) as error:
            refuse(str(error))
    if not state:
        refuse(f'{args.checkpoint} has no weights named {PREFIX}...')
    Path(args.out).parent.mkdir(parents=True, exist_ok=True)
    save_file(state, args.out)
    print(f'{len(state)} tensors written to {args.out}')


if __name__ == '__main__':
    main()
