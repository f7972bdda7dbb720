"""PCA pictures of the same images by all models of a run, side by side.

Columns: the image, the sentinel, the student's levels, and for each map of a
teacher the teacher's and the student's in its place, in the same colours.
"""

from __future__ import annotations

import argparse

from kpu_mm.utils.command_line import (
    add_analysis_arguments,
    add_stream_arguments,
    positive,
    read_config,
    refusing,
)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add_analysis_arguments(parser, num_images=4)
    parser.add_argument('checkpoint', help='checkpoint of the run')
    add_stream_arguments(parser, whole_images=True)
    parser.add_argument(
        '--size',
        type=positive,
        default=448,
        help='pixels of the shorter side (default: 448)',
    )
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    cfg = read_config(args.config, args.cfg_options)
    # Imported late: a wrong argument is answered at once.
    from kpu_mm.analysis.batches import sized_batches
    from kpu_mm.analysis.distilled import load_distiller, pca_panels
    from kpu_mm.analysis.report import picture_grid

    with refusing():
        batches = sized_batches(args, cfg, [args.size])[args.size]
        distiller = load_distiller(
            cfg.get('model', {}), args.checkpoint, args.device
        )
        rows = [pca_panels(distiller, images) for images, _ in batches]
    figure = picture_grid([list(row.values()) for row in rows], list(rows[0]))
    args.out.mkdir(parents=True, exist_ok=True)
    file = args.out / 'pca_panels.png'
    figure.savefig(file, dpi=150)
    print(f'Written: {file}')


if __name__ == '__main__':
    main()
