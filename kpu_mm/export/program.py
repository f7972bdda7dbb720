"""A student as a torch.export program, which needs nothing but torch."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from unittest import mock

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from kpu_mm.models.backbones import KPUBackbone

# The coarsest stride: on its multiples every level has exactly twice the rows
# and columns of the next, which torch.export can prove.
MULTIPLE = 32
# Deviations that reordered float32 sums explain.
TOLERANCE = 1e-4


class RawStudent(nn.Module):
    """Raw images in, plain tensors out.

    Args:
        backbone: The student.
    """

    def __init__(self, backbone: KPUBackbone) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, images: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Normalise and extract.

        Args:
            images: RGB in [0, 255], float32, (B, 3, H, W).

        Returns:
            Summary (B, C) and maps (B, C, H / s, W / s) at strides s of 4,
            8, 16 and 32.
        """
        features = self.backbone.extract(self.backbone.normalise(images))
        assert features.summary is not None
        return features.summary, features.maps


@torch.no_grad()
def export_program(backbone: KPUBackbone) -> ExportedProgram:
    """Trace a student for any batch size, height and width.

    Height and width must be multiples of 32 from 64 on: only there are the
    relations between the sizes of the levels simple enough for torch.export
    to prove. The program raises on others.

    Args:
        backbone: The student, in eval mode.

    Returns:
        The program: raw RGB (B, 3, H, W) float32 -> summary, four maps.

    Raises:
        RuntimeError: If the program's results are not the student's.
    """
    model = RawStudent(backbone).eval()
    sides = {
        axis: MULTIPLE * Dim(name, min=2, max=256)
        for axis, name in ((2, 'rows'), (3, 'columns'))
    }
    images = torch.linspace(0, 255, 2 * 3 * 64 * 96).view(2, 3, 64, 96)
    with _symbolic_sizes(backbone):
        program = torch.export.export(
            model,
            (images,),
            dynamic_shapes=({0: Dim('batch', min=1, max=4096), **sides},),
            strict=False,
        )
    for node in program.graph.nodes:
        node.meta.pop('stack_trace', None)  # paths of this machine
    _check(program, model, images.flip(3).transpose(2, 3)[:1])
    return program


@contextmanager
def _symbolic_sizes(backbone: KPUBackbone) -> Iterator[None]:
    """Keep transformers from fixing the sizes it is traced with.

    Its shortcut for images of the pre-training size is off while tracing,
    and its ``torch_int`` turns symbols into numbers.
    """
    module = sys.modules[type(backbone.sentinel.model.embeddings).__module__]
    with ExitStack() as stack:
        patch = mock.patch.object(torch.jit, 'is_tracing', lambda: True)
        stack.enter_context(patch)
        if hasattr(module, 'torch_int'):
            rounding = mock.patch.object(module, 'torch_int', _keep_symbol)
            stack.enter_context(rounding)
        yield


def _keep_symbol(size: int | float | torch.SymInt) -> int | torch.SymInt:
    return size if isinstance(size, torch.SymInt) else int(size)


def _check(program: ExportedProgram, model: nn.Module, images: Tensor) -> None:
    """Compare on images of another size than the traced one."""
    summary, maps = program.module()(images)
    expected_summary, expected_maps = model(images)
    for got, expected in zip(
        (summary, *maps), (expected_summary, *expected_maps), strict=True
    ):
        error = (got - expected).abs().max() / expected.abs().max().clamp(1)
        if not error <= TOLERANCE:
            raise RuntimeError(
                f'the exported program differs from the student by {error:.1e}'
                f' (torch {torch.__version__}); export with --no-program.'
            )
