"""State dicts: names and tensors, whatever file they come from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .checkpoint_file import read_checkpoint


def load_state(path: str | Path) -> dict[str, Tensor]:
    """Read the weights in a file: a state dict, or a checkpoint with one.

    Args:
        path: A .safetensors or torch file.

    Returns:
        Name to tensor, on the CPU.

    Raises:
        FileNotFoundError: If there is no such file.
        RuntimeError: If it is broken, unsafe, or holds no weights.
    """
    state = read_checkpoint(path)
    for key in ('state_dict', 'model'):
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
            break
    if (
        not isinstance(state, Mapping)
        or not state
        or not all(isinstance(value, Tensor) for value in state.values())
    ):
        raise RuntimeError(
            f"'{path}' holds no weights: expected a mapping from names to "
            "tensors, or one under 'state_dict' or 'model'."
        )
    return dict(state)


def select_prefix(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Take the part of a state dict that belongs to one module.

    Args:
        state: Name to tensor.
        prefix: What the names of the part start with, such as 'student.'.

    Returns:
        The part, its names without the prefix.
    """
    return {name[len(prefix) :]: value for name, value in state.items() if name.startswith(prefix)}


def settle_unused(model: nn.Module, state: dict[str, Any], *_: Any) -> None:
    """Let a checkpoint differ, in place, where no prediction depends on it.

    Also a hook before ``load_state_dict()``. Some versions of transformers
    save position numbers, which others compute. MMDetection's GroundingDINO
    as released has no label embedding, which only the denoising queries of
    training use; the model keeps its own.

    Args:
        model: What the weights are for.
        state: Name to tensor, which is changed.
        *_: What else hooks get.
    """
    own = model.state_dict()
    for name in [n for n in state if n.endswith('.position_ids') and n not in own]:
        del state[name]
    for name in own:
        if name.startswith('dn_query_generator.'):
            state.setdefault(name, own[name])


@torch.no_grad()
def checksum(weights: Iterable[Tensor]) -> str:
    """SHA-256 over float32 values, whatever their order.

    Args:
        weights: The tensors.
    """
    # Names and order differ between versions of transformers, so the digests
    # of the tensors are sorted.
    digests = sorted(
        hashlib.sha256(w.float().contiguous().cpu().numpy().tobytes()).digest() for w in weights
    )
    return hashlib.sha256(b''.join(digests)).hexdigest()


def json_to_tensor(value: Any) -> Tensor:
    """Store JSON in a state dict, which holds tensors only.

    Args:
        value: What JSON can hold.

    Returns:
        The UTF-8 bytes, (N,) uint8.
    """
    return torch.tensor(list(json.dumps(value).encode()), dtype=torch.uint8)


def json_from_tensor(state: Tensor) -> Any:
    """Read what :func:`json_to_tensor` wrote.

    Args:
        state: (N,) uint8.
    """
    return json.loads(bytes(state.tolist()).decode())
