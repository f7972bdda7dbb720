"""A student as a torch.export program, which needs nothing but torch."""

from __future__ import annotations

import operator
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import torch
from torch.export import Dim, ExportedProgram

from .raw_student import RawStudent

# The coarsest level of an image of 33 pixels has two rows; torch.export
# takes sizes that may be one for constants.
MIN_SIDE = 33


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
    # Sides and batch are unlike each other, and no multiples of anything.
    images = torch.linspace(0, 255, 2 * 3 * 75 * 101).view(2, 3, 75, 101)
    sizes = {
        0: Dim.DYNAMIC,
        2: Dim('height', min=MIN_SIDE),
        3: Dim('width', min=MIN_SIDE),
    }
    with _symbolic_sizes(model):
        program = torch.export.export(
            model,
            (images,),
            dynamic_shapes=(sizes,),
            strict=False,
            prefer_deferred_runtime_asserts_over_guards=True,
        )
    for node in program.graph.nodes:
        node.meta.pop('stack_trace', None)  # paths of this machine
    return program


@contextmanager
def _symbolic_sizes(model: RawStudent) -> Iterator[None]:
    """Keep torch and transformers from fixing the sizes they trace with.

    In transformers the shortcut for images of the pre-training size is off
    while tracing, and ``torch_int`` turns symbols into numbers. In torch,
    pooling asks whether a side is odd, though it divides like Python, and
    slices ask whether they are as long as the tensor.
    """
    import torch._meta_registrations as shapes
    from torch.fx.experimental import _config

    config: Any = _config

    embeddings = model.backbone.sentinel.model.embeddings
    module = sys.modules[type(embeddings).__module__]
    with ExitStack() as stack:
        try:
            stack.enter_context(config.patch(backed_size_oblivious=True))
            stack.enter_context(
                mock.patch.object(shapes, 'div_rtn', operator.floordiv)
            )
        except AttributeError as error:
            raise RuntimeError(
                f'torch {torch.__version__} cannot export for images of any '
                'size; use torch 2.10.'
            ) from error
        stack.enter_context(
            mock.patch.object(torch.jit, 'is_tracing', lambda: True)
        )
        if hasattr(module, 'torch_int'):
            stack.enter_context(
                mock.patch.object(module, 'torch_int', _keep_symbol)
            )
        yield


def _keep_symbol(size: int | float | torch.SymInt) -> int | torch.SymInt:
    return size if isinstance(size, torch.SymInt) else int(size)
