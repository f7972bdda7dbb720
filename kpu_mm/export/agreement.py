"""Whether an exported student says what the student says."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

# What float32 sums in another order explain, relative to an output's largest
# value.
TOLERANCE = 1e-4
# (B, H, W), none as traced: what models are trained with; sides that no patch
# and no stride divides, with fewer positions than DINOv2's own; a wide image.
CASES = ((1, 224, 224), (3, 75, 50), (2, 64, 160))


@torch.no_grad()
def largest_difference(
    name: str,
    run: Callable[[Tensor], Mapping[str, Tensor]],
    model: nn.Module,
    cases: Sequence[tuple[int, int, int]] = CASES,
) -> float:
    """Compare an exported graph with the model on random images.

    Args:
        name: Of the graph, for the error.
        run: The graph: images to named outputs.
        model: The model.
        cases: Batch sizes, heights and widths. Defaults to three unlike
            ones.

    Returns:
        The largest absolute difference over the largest absolute value of
        the same output, or over 1 where that is less.

    Raises:
        RuntimeError: If it is above 1e-4, or an output has another name or
            shape.
    """
    generator = torch.Generator().manual_seed(0)
    worst = 0.0
    for batch, height, width in cases:
        images = torch.rand(batch, 3, height, width, generator=generator) * 255
        got, expected = run(images), model(images)
        shapes = [
            {key: tuple(value.shape) for key, value in outputs.items()}
            for outputs in (got, expected)
        ]
        if shapes[0] != shapes[1]:
            raise RuntimeError(
                f'{name} gives {shapes[0]} for images {tuple(images.shape)}, '
                f'but the student {shapes[1]}; it was not written.'
            )
        for key, value in expected.items():
            scale = value.abs().max().clamp(min=1)
            difference = float((got[key] - value).abs().max() / scale)
            if not difference <= TOLERANCE:
                raise RuntimeError(
                    f'{name} differs from the student by {difference:.1e} in '
                    f'{key!r} for images {tuple(images.shape)} (torch '
                    f'{torch.__version__}); it was not written.'
                )
            worst = max(worst, difference)
    return worst
