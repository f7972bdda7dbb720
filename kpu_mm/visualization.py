"""Feature maps and the log of a run as pictures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

_SIDE = 224  # pixels of a tile of a panel


def pca_rgb(feature_map: Tensor, like: Tensor | None = None) -> Tensor:
    """Show the three main directions of a map as red, green and blue.

    Each direction's sign is fixed (its largest entry is positive) and its
    values are stretched from the 1st to the 99th percentile.

    Args:
        feature_map: (C, H, W).
        like: Take centre, directions and stretch from this map, (C, H', W'),
            so that equal features get equal colours. Defaults to None, the
            map itself.

    Returns:
        (3, H, W) in [0, 1], float32.
    """
    channels, height, width = feature_map.shape
    # (C, H, W) -> (HW, C)
    values = feature_map.flatten(1).T.double()
    basis = values if like is None else like.flatten(1).T.double()
    centre = basis.mean(0)
    basis = basis - centre
    # eigh gives the smallest eigenvalue first.
    _, directions = torch.linalg.eigh(basis.T @ basis)
    main = directions[:, -3:].flip(1)  # (C, 3)
    strongest = main.abs().argmax(0, keepdim=True)
    main = main * main.gather(0, strongest).sign()
    bounds = basis.new_tensor([0.01, 0.99])
    low, high = (basis @ main).quantile(bounds, dim=0)
    # Without the clamp a flat map would be divided by zero.
    colours = ((values - centre) @ main - low) / (high - low).clamp(min=1e-12)
    # (HW, 3) -> (3, H, W)
    colours = colours.clamp(0, 1).T.reshape(-1, height, width).float()
    # A map of one or two channels has no green or blue.
    return F.pad(colours, (0, 0, 0, 0, 0, 3 - min(3, channels)))


def feature_panel(image: Tensor, maps: Sequence[Tensor]) -> np.ndarray:
    """Draw an image and the PCA of its feature maps, side by side.

    Args:
        image: Raw RGB in [0, 255], (3, H, W).
        maps: Feature maps, each (C_i, H_i, W_i); those with as many channels
            as the first share its colours.

    Returns:
        uint8 RGB, (224, 224 * (1 + maps), 3).
    """
    first = maps[0]
    tiles = [
        image.float() / 255,
        *(pca_rgb(m, first if len(m) == len(first) else None) for m in maps),
    ]
    resized = [F.interpolate(tile[None].cpu(), (_SIDE, _SIDE), mode='nearest')[0] for tile in tiles]
    # (3, 224, W) -> (224, W, 3)
    panel = torch.cat(resized, dim=2).permute(1, 2, 0)
    return np.ascontiguousarray((panel * 255).round().to(torch.uint8).numpy())


def find_logs(run: str | Path) -> list[Path]:
    """Find what MMEngine's LocalVisBackend has logged, oldest first.

    Args:
        run: A work directory, or a ``scalars.json``.
    """
    run = Path(run)
    # MMEngine names the folders after the time.
    return [run] if run.is_file() else sorted(run.glob('**/scalars.json'))


def read_log(run: str | Path) -> list[dict[str, Any]]:
    """Read the values that a run has logged, one dict per step.

    The logs of a run that was resumed are joined.

    Args:
        run: A work directory, or a ``scalars.json``.

    Raises:
        ValueError: If a line is not JSON.
    """
    rows: dict[int, dict[str, Any]] = {}
    for path in find_logs(run):
        lines = path.read_text(encoding='utf-8').splitlines()
        for number, line in enumerate(lines, start=1):
            try:
                row = json.loads(line)
            except ValueError as error:
                # A run that was killed may leave half a line.
                if number == len(lines):
                    break
                raise ValueError(f'{path}, line {number}, is not JSON: {error}.') from error
            # A validation logs at the step that it follows; an iteration
            # that was repeated after a resume counts once.
            rows.setdefault(row.get('step', 0), {}).update(row)
    return [rows[step] for step in sorted(rows)]


def loss_curves(log: Sequence[Mapping[str, float]]) -> Any:
    """Plot the total loss and its terms over the iterations.

    Args:
        log: What :func:`read_log` returned, not empty.

    Returns:
        A figure of matplotlib.
    """
    # imported late, as every training imports this module
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout='constrained')
    axis = figure.subplots()
    for key in dict.fromkeys(key for row in log for key in row):
        if key == 'loss' or key.split('/')[0] in ('s2t', 't2s', 'rec'):
            rows = [row for row in log if key in row]
            style: dict[str, Any] = dict(color='k', lw=2) if key == 'loss' else {}
            steps = [row['step'] for row in rows]
            axis.plot(steps, [row[key] for row in rows], label=key, **style)
    axis.set(xlabel='iteration', ylabel='loss', ylim=(0, None))
    axis.legend(ncols=2)
    return figure
