"""L_align whose t2s trains the student alone, as an experiment.

In KPU the student and h_t2s are both trained to come together in the common
space, which a constant would meet. Here h_t2s learns from rec only.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from kpu_mm.models.losses import AlignLoss
from kpu_mm.registry import MODELS
from kpu_mm.structures import Features


@MODELS.register_module()
class OneSidedAlignLoss(AlignLoss):
    """L_align that moves its first argument towards the second, where it can.

    s2t and rec, which compare with a frozen teacher, are unchanged.
    """

    def forward(
        self, first: Features, second: Features, weights: Sequence[float] | None = None
    ) -> Tensor:
        """Compare features.

        Args:
            first: The student's; in rec, the teacher's.
            second: The teacher's; in t2s, its image in the common space; in
                rec, what h_rec makes of that.
            weights: As :class:`AlignLoss` takes them. Defaults to None.

        Returns:
            One value for each image, (B,).
        """
        if any(m.requires_grad for m in first.maps):
            summary = None if second.summary is None else second.summary.detach()
            second = second._replace(summary=summary, maps=tuple(m.detach() for m in second.maps))
        return super().forward(first, second, weights)
