"""KPUBackbone against the bare DINOv2 it holds.

Forward and backward to the adapter's parameters, against forward and
backward of the same ViT trained end to end. Rounds alternate.

    python benchmarks/backbone.py [--size 224] [--batch 2] [--rounds 5]
"""

from __future__ import annotations

import argparse
import statistics

import torch
from mmengine.device import get_device
from step_time import timed

from kpu_mm.models import KPUBackbone

VIT_B = dict(
    model_type='dinov2',
    hidden_size=768,
    num_hidden_layers=12,
    num_attention_heads=12,
    image_size=518,
    patch_size=14,
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--size', type=int, default=224)
    parser.add_argument('--batch', type=int, default=2)
    parser.add_argument('--rounds', type=int, default=5)
    args = parser.parse_args()
    device = get_device()
    backbone = KPUBackbone(VIT_B).to(device).train()
    bare = KPUBackbone(VIT_B, frozen='none').sentinel.model.to(device)
    images = torch.randn(args.batch, 3, args.size, args.size, device=device)

    def ours() -> None:
        sum(m.mean() for m in backbone(images)).backward()

    def dinov2() -> None:
        bare(images).last_hidden_state.mean().backward()

    for run in (ours, dinov2):
        run()
    rounds = [(timed(ours), timed(dinov2)) for _ in range(args.rounds)]
    ratios = [a / b for a, b in rounds]
    for name, column in zip(('KPUBackbone', 'DINOv2'), zip(*rounds, strict=True), strict=True):
        print(f'{name:12}{statistics.median(column):8.3f} s')
    print(
        f'KPUBackbone / DINOv2: median {statistics.median(ratios):.2f}, '
        f'{min(ratios):.2f} to {max(ratios):.2f} in {args.rounds} rounds'
    )


if __name__ == '__main__':
    main()
