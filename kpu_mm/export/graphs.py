"""Graphs of a student that run without kpu_mm, each checked once written."""

from __future__ import annotations

import operator
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import zip_longest
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from kpu_mm.models.backbones.sentinel_backbone import SentinelBackbone
from kpu_mm.models.teacher_link import TeacherLink

Run = Callable[[Tensor], Mapping[str, Tensor]]

# The coarsest level of an image of 33 pixels has two rows; torch.export
# treats sizes that may be one as constants.
MIN_SIDE = 33
# The first operator set with GridSample on maps of any kind and with GELU.
OPSET = 20
# Sums in float32 depend on their order; this is relative to the largest value
# of an output.
TOLERANCE = 1e-4
# (B, H, W), none of which is traced: the size of training; sides that are no
# multiples of anything, smaller than DINOv2's own; a wide image.
CASES = ((1, 224, 224), (3, 75, 50), (2, 64, 160))


class RawStudent(nn.Module):
    """The model that is traced: raw images to named tensors.

    Args:
        backbone: The student, in eval mode.
        links: By teacher, the link into its space.
    """

    def __init__(self, backbone: SentinelBackbone, links: Mapping[str, TeacherLink]) -> None:
        super().__init__()
        self.backbone = backbone
        self.links: Any = nn.ModuleDict(links)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Normalise, extract and project.

        Args:
            images: RGB in [0, 255], float32, (B, 3, H, W).

        Returns:
            ``summary`` (B, C) and ``map_s`` (B, C, ceil(H / s), ceil(W / s))
            at strides s of 4, 8, 16 and 32, or at a ViT's own stride, with
            sizes rounded to the nearest; for each link ``NAME_summary``
            (B, D), if the teacher has one, and ``NAME_map_i``
            (B, C_i, ceil(H / s_i), ceil(W / s_i)) at its strides s_i.
        """
        size = (images.shape[-2], images.shape[-1])
        features = self.backbone.encode(images)
        outputs: dict[str, Any] = dict(summary=features.summary)
        for stride, m in zip(self.backbone.strides, features.maps, strict=True):
            outputs[f'map_{stride}'] = m
        for name, link in self.links.items():
            projected = link.infer(features, size)
            if projected.summary is not None:
                outputs[f'{name}_summary'] = projected.summary
            for i, m in enumerate(projected.maps):
                outputs[f'{name}_map_{i}'] = m
        return outputs


@torch.no_grad()
def write_graphs(folder: Path, model: RawStudent, formats: Sequence[str]) -> dict[str, Any]:
    """Trace a student once and write it in several formats.

    Args:
        folder: Where to write.
        model: The student, in eval mode.
        formats: Names out of ``WRITERS``.

    Returns:
        For config.json: channels of each output, the sizes of the compared
        images, and for each file the largest difference from the student.

    Raises:
        RuntimeError: If a graph's results are not the student's.
    """
    program = export_program(model)
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


@torch.no_grad()
def export_program(model: RawStudent) -> ExportedProgram:
    """Trace a student for any batch size and any sides from 33 pixels.

    Args:
        model: The student, in eval mode.

    Returns:
        The program: raw RGB (B, 3, H, W) float32 -> named outputs.

    Raises:
        RuntimeError: If this version of torch cannot keep sizes symbolic.
    """
    # Sizes that are equal or multiples would share a symbol.
    images = torch.linspace(0, 255, 2 * 3 * 75 * 101).view(2, 3, 75, 101)
    sizes = {0: Dim.DYNAMIC, 2: Dim('height', min=MIN_SIDE), 3: Dim('width', min=MIN_SIDE)}
    with _symbolic_sizes(model):
        program = torch.export.export(
            model,
            (images,),
            dynamic_shapes=(sizes,),
            strict=False,
            prefer_deferred_runtime_asserts_over_guards=True,
        )
    for node in program.graph.nodes:
        # It holds paths of this machine.
        node.meta.pop('stack_trace', None)
    return program


@contextmanager
def _symbolic_sizes(model: RawStudent) -> Iterator[None]:
    """Keep torch and transformers from fixing the sizes they trace with."""
    import torch._meta_registrations as shapes
    from torch.fx.experimental import _config

    config: Any = _config
    module = sys.modules[type(model.backbone.sentinel.model).__module__]
    with ExitStack() as stack:
        try:
            # Slices compare their length with that of the tensor.
            stack.enter_context(config.patch(backed_size_oblivious=True))
            # Pooling's division, which branches on odd sides, for Python's.
            stack.enter_context(mock.patch.object(shapes, 'div_rtn', operator.floordiv))
        except AttributeError as error:
            raise RuntimeError(
                f'torch {torch.__version__} cannot export for images of any size; use torch 2.10.'
            ) from error
        # Turns off transformers' shortcut for the pre-training size.
        stack.enter_context(mock.patch.object(torch.jit, 'is_tracing', lambda: True))
        # Its torch_int would make numbers of symbols. Some models have none.
        stack.enter_context(
            mock.patch.object(
                module,
                'torch_int',
                lambda x: x if isinstance(x, torch.SymInt) else int(x),
                create=True,
            )
        )
        yield


def _write_program(program: ExportedProgram, _: Any, path: Path) -> Run:
    torch.export.save(program, path)
    run: Run = torch.export.load(path).module()
    return run


def _write_onnx(program: ExportedProgram, names: Sequence[str], path: Path) -> Run:
    """Write ONNX; weights over the limit of a file go into PATH.data."""
    graph = torch.onnx.export(
        program,
        dynamo=True,
        opset_version=OPSET,
        input_names=['images'],
        output_names=list(names),
        verbose=False,
    )
    assert graph is not None
    _name_sizes(graph.model.graph.inputs[0], 'batch', None, 'height', 'width')
    for value in graph.model.graph.outputs:
        _name_sizes(value, 'batch')
    for node in graph.model.graph:
        # It holds paths of this machine.
        node.metadata_props.clear()
    graph.save(path)
    return open_onnx(path)


def _name_sizes(value: Any, *names: str | None) -> None:
    """Replace the formulas of free sizes by names."""
    import onnx_ir

    value.shape = onnx_ir.Shape(
        size if isinstance(size, int) else name for size, name in zip_longest(value.shape, names)
    )


def open_onnx(path: Path) -> Run:
    """Open an ONNX graph with onnxruntime on the CPU.

    Args:
        path: The file.

    Returns:
        A function from raw images (B, 3, H, W) to the named outputs.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=['CPUExecutionProvider'])
    names = [output.name for output in session.get_outputs()]

    def run(images: Tensor) -> dict[str, Tensor]:
        outputs = session.run(names, {'images': images.numpy()})
        return dict(zip(names, map(torch.from_numpy, outputs), strict=True))

    return run


WRITERS: dict[str, tuple[str, Callable[..., Run]]] = {
    'onnx': ('student.onnx', _write_onnx),
    'program': ('student.pt2', _write_program),
}


@torch.no_grad()
def largest_difference(
    name: str, run: Run, model: nn.Module, cases: Sequence[tuple[int, int, int]] = CASES
) -> float:
    """Compare an exported graph with the model on random images.

    Args:
        name: Name of the graph, for the error.
        run: The graph: images to named outputs.
        model: The model.
        cases: Batch sizes, heights and widths. Defaults to ``CASES``.

    Returns:
        The largest absolute difference over the largest absolute value of
        the same output, or over 1 if that is less.

    Raises:
        RuntimeError: If it is above 1e-4, or a name or shape differs.
    """
    generator = torch.Generator().manual_seed(0)
    worst = 0.0
    for batch, height, width in cases:
        images = torch.rand(batch, 3, height, width, generator=generator) * 255
        got, expected = run(images), model(images)
        where = f'for images {tuple(images.shape)}'
        shapes = [
            {key: tuple(value.shape) for key, value in outputs.items()}
            for outputs in (got, expected)
        ]
        if shapes[0] != shapes[1]:
            raise RuntimeError(
                f'{name} gives {shapes[0]} {where}, but the student '
                f'{shapes[1]}; it was not written.'
            )
        for key, value in expected.items():
            scale = value.abs().max().clamp(min=1)
            difference = float((got[key] - value).abs().max() / scale)
            # Not `difference > TOLERANCE`, which is false for NaN.
            if not difference <= TOLERANCE:
                raise RuntimeError(
                    f'{name} differs from the student by {difference:.1e} in {key!r} {where} '
                    f'(torch {torch.__version__}); it was not written.'
                )
            worst = max(worst, difference)
    return worst
