"""The mean and deviation a model was trained with."""

from __future__ import annotations

from collections.abc import Sequence
from math import isclose
from pathlib import Path

from kpu_mm.weights.pretrained import read_config

Triple = tuple[float, float, float]


def read_normalization(
    folder: Path,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> tuple[Triple, Triple]:
    """Mean and deviation in units of [0, 1], never a guess.

    Args:
        folder: Folder of a transformers model; its preprocessor_config.json
            is read unless both values are given.
        mean: Takes precedence over the file. Defaults to None.
        std: Takes precedence over the file. Defaults to None.

    Returns:
        Mean and standard deviation of the RGB channels.

    Raises:
        ValueError: If only one value is given, or neither the file nor the
            caller says both.
    """
    if (mean is None) != (std is None):
        raise ValueError('give both mean and std, or neither')
    if mean is not None and std is not None:
        return _triple(mean), _triple(std)
    config: dict = {}
    # transformers 5 saves one file for image processor and tokenizer
    for name in ('preprocessor_config.json', 'processor_config.json'):
        if (folder / name).is_file():
            config = read_config(folder, name)
            config = config.get('image_processor', config)
            break
    if config.get('do_normalize', True) is False:
        mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    elif 'image_mean' not in config or 'image_std' not in config:
        raise ValueError(
            f"'{folder}' does not say how images are normalised: add its "
            'preprocessor_config.json with image_mean and image_std, or pass '
            'mean and std in units of [0, 1]'
        )
    else:
        mean, std = config['image_mean'], config['image_std']
    # the processor computes (x * factor - mean) / std
    factor = config.get('rescale_factor', 1 / 255)
    if config.get('do_rescale', True) is False:
        factor = 1.0
    scale = 1.0 if isclose(factor, 1 / 255) else 1 / (255 * factor)
    return _triple([v * scale for v in mean]), _triple(
        [v * scale for v in std]
    )


def _triple(values: Sequence[float]) -> Triple:
    red, green, blue = map(float, values)
    return red, green, blue
