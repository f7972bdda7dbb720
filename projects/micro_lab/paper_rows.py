"""The rows of the paper's tables and the micro runs that reproduce them.

KPU (https://arxiv.org/abs/2508.14707). The columns are semantic
segmentation (mIoU), instance segmentation (mask AP), detection (box AP) and
classification (top-1).
"""

from __future__ import annotations

from typing import NamedTuple

METRICS = {
    'mIoU': 'segmentation/mIoU',
    'mask AP': 'detection/coco/segm_mAP',
    'box AP': 'detection/coco/bbox_mAP',
    'top-1': 'classification/accuracy/top1',
}


class Row(NamedTuple):
    """A row of a table.

    Args:
        name: The paper's name for the row.
        published: mIoU, mask AP, box AP and top-1 in the paper; () if the
            paper has none.
        tasks: Config in ``configs`` that trains the decoders.
        distilled: Config in ``configs`` whose student is the backbone; None
            if a teacher is. Defaults to None.
    """

    name: str
    published: tuple[float, ...]
    tasks: str
    distilled: str | None = None

    @property
    def key(self) -> str:
        """Name of the folder of its run."""
        return f'{self.tasks}_{self.distilled}' if self.distilled else self.tasks


# Distillations by name of their config, the decisive ones first.
STUDENTS = {
    'kpu': 'KPU',
    'base-b': 'Base_b, s2t alone',
    'kpu_weak': 'KPU, t2s at 0.1',
    'kpu_one-sided': 'KPU, t2s for the student alone',
    'kpu_gap-33': 'KPU, gap 33',
    'base-b_gap-33': 'Base_b, gap 33',
    'kpu_weak_gap-33': 'KPU, t2s at 0.1, gap 33',
    'famo_gap-33': 'KPU with FAMO, gap 33',
    'phi-s_gap-33': 'Base_b with PHI-S, gap 33',
    'kpu_doubled': 'KPU, twice the iterations',
    'kpu_four-blocks': 'KPU, four blocks',
    'famo': 'KPU with FAMO',
    'base-a': 'Base_a, a ViT end to end',
    'base-c': 'Base_c, without rec',
    'clip-only': 'CLIP only',
    'grounding-dino-only': 'GroundingDINO only',
    'teacher-drop': 'KPU with TeacherDrop',
}
# The sentinel with an adapter that met no teacher.
UNTRAINED = 'untrained adapter'
_KPU = Row('KPU', (52.9, 47.3, 52.8, 84.3), 'tasks', 'kpu')
TABLE_0 = (
    Row('the untrained adapter, frozen', (), 'tasks'),
    Row('the adapter trained with the decoders', (), 'tasks_learnable'),
    _KPU._replace(published=()),
    Row('KPU, t2s at 0.1', (), 'tasks', 'kpu_weak'),
    Row('Base_b', (), 'tasks', 'base-b'),
)
# The published figures are those of the paper's tables with these numbers.
TABLES: dict[str, tuple[Row, ...]] = {
    'Table 0: with and without distillation': TABLE_0,
    'Table 1: KPU and its teachers': (
        Row('CLIP', (41.5, 33.4, 38.0, 75.1), 'tasks_clip'),
        Row('GroundingDINO', (49.7, 48.2, 53.9, 79.5), 'tasks_grounding-dino'),
        Row('DINOv2', (53.2, 45.8, 52.7, 82.9), 'tasks_dinov2'),
        _KPU._replace(name='KPU, frozen features'),
        Row('KPU, learnable features', (57.5, 51.3, 57.7, 86.4), 'tasks_learnable', 'kpu'),
    ),
    'Table 2: from end-to-end distillation to KPU': (
        Row('Base_a', (51.1, 44.4, 50.3, 81.9), 'tasks_end-to-end', 'base-a'),
        Row('Base_b', (52.4, 46.8, 52.0, 84.4), 'tasks', 'base-b'),
        Row('Base_c', (51.2, 46.4, 52.0, 84.0), 'tasks', 'base-c'),
        # the ablation's own figures, of which two differ from Table 1's
        _KPU._replace(published=(52.8, 47.3, 52.9, 84.3)),
    ),
}
# Ratio of the teachers' standard deviations in the paper, in their own spaces
# and unified.
GAP_PUBLISHED = (33.4, 4.5)


def all_rows() -> dict[str, Row]:
    """Return each run once, by the name of its folder."""
    return {row.key: row for rows in TABLES.values() for row in rows}
