"""How padding in a batch changes the features of an image.

    python benchmarks/padding.py

A photograph of 400 x 320 pixels alone, and at the top left of 512 x 480
zeros, through a Swin-T with random weights (GroundingDINO tiny's backbone).
"""

from __future__ import annotations

import torch
from skimage.data import astronaut
from transformers import SwinBackbone, SwinConfig


@torch.no_grad()
def main() -> None:
    torch.manual_seed(0)
    model = SwinBackbone(SwinConfig(window_size=7, out_indices=[2, 3, 4]))
    model.eval()
    # (H, W, 3) uint8 -> (1, 3, H, W), normalised
    photo = torch.from_numpy(astronaut().copy()).permute(2, 0, 1)[None]
    image = (photo[..., :400, :320] / 255 - 0.45) / 0.225
    padded = image.new_zeros(1, 3, 512, 480)
    padded[..., :400, :320] = image
    pairs = zip(model(image).feature_maps, model(padded).feature_maps, strict=True)
    for stride, (alone, beside) in zip((8, 16, 32), pairs, strict=True):
        rows, columns = alone.shape[-2:]
        difference = beside[..., :rows, :columns] - alone
        print(f'stride {stride:2}: {difference.norm() / alone.norm():.1%}')


if __name__ == '__main__':
    main()
