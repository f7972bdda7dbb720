"""Projectors into the teachers' spaces, as ``tools/export.py`` wrote them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from kpu_mm.weights.state_dict import load_state

from .mlp_projector import MLPProjector


def load_projectors(folder: str | Path) -> nn.ModuleDict:
    """Load the projectors of an exported student.

    Args:
        folder: The folder that ``tools/export.py`` wrote.

    Returns:
        For each teacher the MLPProjector from the student's space into the
        teacher's, in eval mode.

    Raises:
        FileNotFoundError: If the folder has no projectors.
        RuntimeError: If the file is broken.
    """
    state = load_state(Path(folder).expanduser() / 'projectors.safetensors')
    return nn.ModuleDict(build_projectors(state)).eval()


def build_projectors(state: Mapping[str, Tensor]) -> dict[str, MLPProjector]:
    """Build projectors from weights alone; their shapes tell the rest.

    Args:
        state: Weights of projectors, each name starting with the teacher's.

    Returns:
        A projector for each teacher.

    Raises:
        RuntimeError: If the weights are not those of an MLPProjector.
    """
    projectors = {}
    for teacher in dict.fromkeys(name.split('.')[0] for name in state):
        prefix = teacher + '.'
        weights = {
            name[len(prefix) :]: value
            for name, value in state.items()
            if name.startswith(prefix)
        }
        projectors[teacher] = _build(teacher, weights)
    return projectors


def _build(teacher: str, weights: Mapping[str, Tensor]) -> MLPProjector:
    count = len({k.split('.')[1] for k in weights if k.startswith('maps.')})
    mlps = [f'maps.{i}' for i in range(count)]
    try:
        shapes = [
            (
                weights[f'{mlp}.0.weight'].shape,
                weights[f'{mlp}.2.weight'].shape,
            )
            for mlp in mlps
        ]
        summary = 'summary.0.weight' in weights
        projector = MLPProjector(
            weights['summary.0.weight'].shape[1] if summary else None,
            weights['summary.2.weight'].shape[0] if summary else None,
            in_channels=[first[1] for first, _ in shapes],
            out_channels=[last[0] for _, last in shapes],
            hidden=shapes[0][0][0],
        )
        projector.load_state_dict(dict(weights))
    except (KeyError, IndexError, RuntimeError) as error:
        raise RuntimeError(
            f"The projector of teacher '{teacher}' is not a kpu_mm."
            f'MLPProjector: its weights are {sorted(weights)[:4]}...; only '
            'MLPProjectors can be exported.'
        ) from error
    return projector
