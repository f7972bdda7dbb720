"""PCA pictures of the same images by all models of a run, side by side.

    python tools/analysis_tools/pca_panels.py configs/distill/kpu_vitb.py iter_40000.pth

Columns: the image, the sentinel, the student's levels, and for each map of a
teacher the teacher's and the student's in its place, in the same colours.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from torch import Tensor

from kpu_mm.analysis.batches import sized_batches
from kpu_mm.analysis.distilled import all_models, extract_pairs, load_distiller
from kpu_mm.analysis.report import picture_grid
from kpu_mm.models.kpu_distiller import KPUDistiller
from kpu_mm.utils.command_line import (
    add_analysis_arguments,
    add_stream_arguments,
    positive,
    read_config,
    refusing,
    tool_parser,
)
from kpu_mm.visualization import pca_rgb


@torch.no_grad()
def pca_panels(distiller: KPUDistiller, image: Tensor) -> dict[str, np.ndarray]:
    """Draw an image and the features of each model.

    Each model has its own main directions as colours; the student in a
    teacher's space has the teacher's, so that equal features look equal.

    Args:
        distiller: The distiller.
        image: One raw image, (1, 3, H, W).

    Returns:
        By title, pictures (h, w, 3) in [0, 1]: the image, the sentinel (if
        there is one), the student's levels; then, map by map, each teacher
        and the student in its place.
    """
    models = all_models(distiller)
    pictures = dict(image=image[0].float().cpu() / 255)
    if 'sentinel' in models:
        (patches,) = models['sentinel'](image, None).maps
        pictures['sentinel'] = pca_rgb(patches[0])
    strides = distiller.student.strides
    levels = models['student'](image, None).maps
    for stride, m in zip(strides, levels, strict=True):
        pictures[f'student\nstride {stride}'] = pca_rgb(m[0])
    for name, link in distiller.links.items():
        student, teacher = extract_pairs(distiller, name, image)
        if link.s2t is not None:
            student = link.to_teacher(student, like=teacher)
        for i, (index, level) in enumerate(link.levels.pairs):
            shown = teacher.maps[i][0]
            stride = link.levels.strides[index]
            pictures[f'{name}\nmap {index}, stride {stride}'] = pca_rgb(shown)
            if link.s2t is not None:
                title = f'student, stride {strides[level]}\nas {name}'
                pictures[f'{title}, map {index}'] = pca_rgb(student.maps[i][0], like=shown)
    return {
        # (3, h, w) -> (h, w, 3)
        title: picture.permute(1, 2, 0).cpu().numpy()
        for title, picture in pictures.items()
    }


def parse_args() -> argparse.Namespace:
    parser = tool_parser(__doc__)
    add_analysis_arguments(parser, num_images=4)
    parser.add_argument('checkpoint', help='checkpoint of the run')
    add_stream_arguments(parser, whole_images=True)
    parser.add_argument(
        '--size', type=positive, default=448, help='pixels of the shorter side (default: 448)'
    )
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    cfg = read_config(args.config, args.cfg_options)
    with refusing():
        batches = sized_batches(args, cfg, [args.size])[args.size]
        distiller = load_distiller(cfg.get('model', {}), args.checkpoint, args.device)
        rows = [pca_panels(distiller, images) for images, _ in batches]
    figure = picture_grid([list(row.values()) for row in rows], list(rows[0]))
    args.out.mkdir(parents=True, exist_ok=True)
    file = args.out / 'pca_panels.png'
    figure.savefig(file, dpi=150)
    print(f'Written: {file}')


if __name__ == '__main__':
    main()
