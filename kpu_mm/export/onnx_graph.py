"""A student as an ONNX graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram

# the first with GridSample on maps of any kind and a GELU of its own
OPSET = 20
NEEDED = ('onnx', 'onnxruntime', 'onnxscript')


def check_onnx() -> None:
    """Raise unless all that writes and checks ONNX graphs is installed.

    Raises:
        ModuleNotFoundError: If something is missing.
    """
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise ModuleNotFoundError(
            f'ONNX export needs {", ".join(missing)}: run '
            f'`pip install {" ".join(missing)}`.'
        )


def write_onnx(
    program: ExportedProgram, names: Sequence[str], path: Path
) -> None:
    """Write a program as ONNX, with batch, height and width free.

    Weights go into the file itself, or beside it into ``PATH.data`` where
    they exceed what one file of ONNX may hold.

    Args:
        program: What :func:`export_program` gave.
        names: Names of its outputs, in order.
        path: The file.
    """
    graph = torch.onnx.export(
        program,
        dynamo=True,
        opset_version=OPSET,
        input_names=['images'],
        output_names=list(names),
        verbose=False,
    )
    assert graph is not None
    model = graph.model
    _name_sizes(model.graph.inputs[0], ('batch', None, 'height', 'width'))
    for value in model.graph.outputs:
        _name_sizes(value, ('batch', None))
    for node in model.graph:
        node.metadata_props.clear()  # where in the sources it comes from
    graph.save(path)


def _name_sizes(value: Any, names: Sequence[str | None]) -> None:
    """Names for sizes instead of formulas; None keeps the number."""
    import onnx_ir

    sizes = [
        size if isinstance(size, int) else name
        for size, name in zip(
            value.shape,
            (*names, *[None] * (len(value.shape) - len(names))),
            strict=True,
        )
    ]
    value.shape = onnx_ir.Shape(sizes)


def open_onnx(path: Path) -> Callable[[Tensor], dict[str, Tensor]]:
    """Open a graph with onnxruntime on the CPU.

    Args:
        path: What :func:`write_onnx` wrote.

    Returns:
        A function from raw images (B, 3, H, W) to the named outputs.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(
        str(path), providers=['CPUExecutionProvider']
    )
    names = [output.name for output in session.get_outputs()]

    def run(images: Tensor) -> dict[str, Tensor]:
        outputs = session.run(names, {'images': images.numpy()})
        return {
            name: torch.from_numpy(output)
            for name, output in zip(names, outputs, strict=True)
        }

    return run
