"""What models cost, and what their features look like in numbers."""

from .cost import count_flops, count_parameters, flops_by_part, part_of
from .teacher_gap import measure_teachers

__all__ = [
    'count_flops',
    'count_parameters',
    'flops_by_part',
    'measure_teachers',
    'part_of',
]
