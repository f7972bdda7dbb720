import pytest

from kpu_mm.export.agreement import CASES, largest_difference
from kpu_mm.export.program import export_program


@pytest.mark.slow
@pytest.mark.parametrize('family', ['dinov2_with_registers', 'dinov3_vit'])
def test_other_families(family, raw_student):
    """DINOv2 itself is written and read again in test_graphs.py."""
    model = raw_student(family)
    program = export_program(model)
    assert not any('stack_trace' in n.meta for n in program.graph.nodes)
    cases = (*CASES, (1, 64, 64), (2, 33, 70))
    assert largest_difference('x', program.module(), model, cases) < 1e-5
