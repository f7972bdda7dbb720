"""Arguments that the tools of analysis share."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from .command_line import add_config_arguments


def positive(text: str) -> int:
    """A whole number from 1, as the ``type`` of an argument.

    Args:
        text: What the user wrote.

    Raises:
        ArgumentTypeError: If it is something else.
    """
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(
            f'{text!r} is no whole number from 1 on'
        )
    return int(text)


def device(text: str) -> torch.device:
    """A device, as the ``type`` of an argument.

    Args:
        text: What the user wrote.

    Raises:
        ArgumentTypeError: If torch knows no such device.
    """
    try:
        return torch.device(text)
    except RuntimeError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no device such as 'cpu' or 'cuda:0'"
        ) from None


def add_analysis_arguments(
    parser: argparse.ArgumentParser, num_images: int
) -> None:
    """Add which run to look at, how long, where, and where to write.

    Args:
        parser: The parser of the tool.
        num_images: Default of ``--num-images``.
    """
    add_config_arguments(parser)
    parser.add_argument(
        '--num-images',
        type=positive,
        default=num_images,
        help=f'how many images to look at (default: {num_images})',
    )
    parser.add_argument(
        '--device',
        type=device,
        default='cuda' if torch.cuda.is_available() else 'cpu',
        help="such as 'cuda:1' (default: a GPU if there is one)",
    )
    add_out_argument(parser)


def add_seed_argument(parser: argparse.ArgumentParser) -> None:
    """Add ``--seed``, for tools that read the streams of a run.

    Args:
        parser: The parser of the tool.
    """
    parser.add_argument(
        '--seed',
        type=int,
        default=0,
        help='which images, and which random transforms (default: 0)',
    )


def add_image_arguments(parser: argparse.ArgumentParser) -> None:
    """Add ``--images`` and ``--seed``, for tools that show whole images.

    Args:
        parser: The parser of the tool.
    """
    parser.add_argument(
        '--images',
        metavar='FOLDER',
        help="folder of images (default: those of the config's first stream)",
    )
    add_seed_argument(parser)


def add_out_argument(parser: argparse.ArgumentParser) -> None:
    """Add ``--out``, the folder of an analysis.

    Args:
        parser: The parser of the tool.
    """
    parser.add_argument(
        '--out',
        type=Path,
        default='work_dirs/analysis',
        help='folder for numbers (.json), table (.md) and picture (.png) '
        '(default: work_dirs/analysis)',
    )
