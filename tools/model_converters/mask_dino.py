"""Turn an official Mask DINO checkpoint into one of this package.

    python tools/model_converters/mask_dino.py CONFIG OFFICIAL.pth OUT.pth

The config is the one that OUT is for. Every weight must find its place; the
architecture that the file's shapes tell is printed, as names of official
files do not always tell it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from kpu_mm.utils.command_line import add_config_arguments, read_config, refuse


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_config_arguments(parser)
    parser.add_argument(
        'official',
        help='.pth of a training, or .pkl of numpy arrays as in the model '
        'zoo of detectron2',
    )
    parser.add_argument('out', help='file to write; must not exist yet')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    cfg = read_config(args.config, args.cfg_options)
    if 'model' not in cfg:
        refuse(f'{args.config} has no `model`.')
    if Path(args.out).exists():
        refuse(f'{args.out} exists; choose another file.')
    # Imported late: a wrong argument is answered at once.
    import torch
    from mmengine.registry import init_default_scope

    from kpu_mm.datasets.image_table import atomic_file
    from kpu_mm.models.heads.mask_dino.official_checkpoint import (
        convert_official,
        describe_official,
        read_official,
    )
    from kpu_mm.registry import MODELS

    try:
        official = read_official(args.official)
        print(f'{args.official}: {describe_official(official)}.')
        init_default_scope(cfg.get('default_scope', 'mmengine'))
        model = MODELS.build(cfg.model)
        weights = convert_official(official, model.state_dict())
    except (OSError, RuntimeError, ValueError) as error:
        refuse(str(error))
    with atomic_file(Path(args.out)) as file:
        torch.save({'state_dict': weights, 'meta': {}}, file)
    print(
        f'{len(official)} official weights became the {len(weights)} of '
        f'{args.config}: {args.out}'
    )


if __name__ == '__main__':
    main()
