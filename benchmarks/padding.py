"""How padding in a batch changes the features of an image, and how much there is.

    python benchmarks/padding.py [--folder IMAGES]

A photograph of 400 x 320 pixels alone, and at the top left of 512 x 480
zeros, through a Swin-T with random weights (GroundingDINO tiny's backbone).
With a folder: the share of padding in GroundingDINO's batches of
configs/distill/kpu_vitb.py, and the processor time of loading an image, with and
without groups of like shapes.
"""

from __future__ import annotations

import argparse
import time
from itertools import islice

import torch
from mmengine.config import Config
from skimage.data import astronaut
from transformers import SwinBackbone, SwinConfig

from kpu_mm.datasets import MultiStreamLoader


def measure_batches(folder: str, group_size: int, count: int = 75) -> None:
    """Print the share of padding and the processor time of loading."""
    stream = Config.fromfile('configs/distill/kpu_vitb.py').train_dataloader.grounding_dino
    stream.num_workers = 0
    stream.dataset.update(
        sources=dict(type='kpu_mm.FolderSource', root=folder), weights=None, group_size=group_size
    )
    area, padded, shares = 0, 0, []
    start = time.process_time()
    for batch in islice(MultiStreamLoader(dict(images=stream)), count):
        images, mask = (batch['streams']['images'][key] for key in ('images', 'mask'))
        shares.append(0.0 if mask is None else (~mask).float().mean().item())
        area += images[:, 0].numel()
        padded += images[:, 0].numel() * shares[-1]
    seconds = (time.process_time() - start) / (count * stream.batch_size)
    print(
        f'groups of {group_size}: {padded / area:.1%} padding ({min(shares):.0%} to '
        f'{max(shares):.0%}), {1000 * seconds:.1f} ms an image'
    )


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--folder', help='folder of images')
    folder = parser.parse_args().folder
    if folder:
        for group_size in (1, 4, 1, 4):
            measure_batches(folder, group_size)
        return
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
