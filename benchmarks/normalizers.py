"""What target normalisers cost.

Times the normalisation of a ViT-B/16's tokens of one image of 224 pixels in
relation to the forward of that ViT with random weights, and the solution
from given moments. Rounds alternate, so that a drifting machine slows both.

    python benchmarks/normalizers.py [--rounds N]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from transformers import ViTConfig, ViTModel

from kpu_mm.registry import MODELS
from kpu_mm.structures import Features, Moments

NAMES = ('GlobalStandard', 'Standard', 'PCA', 'ZCA', 'HCA', 'PHIS')
CHANNELS, SIDE = 768, 14


def timed(run: Callable[[], object]) -> float:
    """Seconds that a call takes."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--rounds', type=int, default=10)
    args = parser.parse_args()
    torch.manual_seed(0)
    vit = ViTModel(ViTConfig(), add_pooling_layer=False).eval()
    image = torch.randn(1, 3, 224, 224)
    features = Features(None, (torch.randn(1, CHANNELS, SIDE, SIDE),))
    moments = Moments.of(torch.randn(2 * CHANNELS, CHANNELS) * torch.rand(CHANNELS))
    print(f'{CHANNELS} channels      solved in   of the forward of a ViT-B')
    for name in NAMES:
        normalizer = MODELS.build(
            dict(type=f'kpu_mm.{name}Normalizer', summary_channels=None, channels=(CHANNELS,))
        )
        solved = timed(lambda n=normalizer: n.fit({'map 0': moments}))
        normalizer(features)
        vit(image)
        shares = [
            timed(lambda n=normalizer: n(features)) / timed(lambda: vit(image))
            for _ in range(args.rounds)
        ]
        print(f'{name:16}{solved:9.2f} s{100 * statistics.median(shares):16.2f} %')


if __name__ == '__main__':
    main()
