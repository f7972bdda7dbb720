"""Predictions to files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mmengine
import numpy as np


def write_prediction(
    prediction: dict[str, Any], folder: Path, name: str
) -> None:
    """Write JSON, and arrays into one file beside it.

    Args:
        prediction: The prediction; the JSON's ``arrays`` names the file of
            its arrays, where those in lists are numbered.
        folder: Where to.
        name: Of the files, without suffix.
    """
    folder.mkdir(parents=True, exist_ok=True)
    arrays, rest = split_arrays(prediction)
    if arrays:
        np.savez_compressed(folder / f'{name}.npz', **arrays)
        rest['arrays'] = f'{name}.npz'
    mmengine.dump(rest, folder / f'{name}.json')


def split_arrays(
    prediction: dict[str, Any],
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Tell arrays from what is JSON.

    Args:
        prediction: The prediction.

    Returns:
        Arrays by name, those in lists numbered; and the rest.
    """
    arrays: dict[str, Any] = {}
    rest: dict[str, Any] = {}
    for key, value in prediction.items():
        if isinstance(value, np.ndarray):
            arrays[key] = value
        elif isinstance(value, list) and any(
            isinstance(part, np.ndarray) for part in value
        ):
            arrays |= {f'{key}_{i}': part for i, part in enumerate(value)}
        else:
            rest[key] = value
    return arrays, rest
