"""Graphs of a student that run without kpu_mm, each checked once written."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram

from .agreement import CASES, largest_difference
from .onnx_graph import open_onnx, write_onnx
from .program import export_program
from .raw_student import RawStudent

Run = Callable[[Tensor], Mapping[str, Tensor]]


def write_graphs(
    folder: Path, model: RawStudent, formats: Sequence[str]
) -> dict[str, Any]:
    """Trace a student once and write it in several formats.

    Args:
        folder: Where to.
        model: The student with its heads, in eval mode.
        formats: Names out of ``WRITERS``.

    Returns:
        For config.json: channels of each output, the sizes of the images
        that were compared, and for each file the largest difference from
        the student.

    Raises:
        RuntimeError: If a graph's results are not the student's.
    """
    program = export_program(model)
    with torch.no_grad():
        outputs = model(torch.zeros(1, 3, 64, 64))
    files = {}
    for kind in formats:
        name, write = WRITERS[kind]
        run = write(program, list(outputs), folder / name)
        files[name] = largest_difference(name, run, model)
    return dict(
        outputs={key: value.shape[1] for key, value in outputs.items()},
        compared_on=[list(case) for case in CASES],
        largest_differences=files,
    )


def _write_program(
    program: ExportedProgram, _: Sequence[str], path: Path
) -> Run:
    torch.export.save(program, path)
    run: Run = torch.export.load(path).module()
    return run


def _write_onnx(
    program: ExportedProgram, names: Sequence[str], path: Path
) -> Run:
    write_onnx(program, names, path)
    return open_onnx(path)


WRITERS: dict[str, tuple[str, Callable[..., Run]]] = {
    'onnx': ('student.onnx', _write_onnx),
    'program': ('student.pt2', _write_program),
}
