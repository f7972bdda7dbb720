"""ZeroShotClsHead: image summaries against text embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from kpu_mm.registry import MODELS

from .text_head import TextHead


@MODELS.register_module()
class ZeroShotClsHead(TextHead):
    """Zero-shot classification, as a head of MMPretrain's ImageClassifier.

    `CLIP <https://arxiv.org/abs/2103.00020>`_: cosine similarity times the
    learnt scale, then softmax; for a `SigLIP
    <https://arxiv.org/abs/2303.15343>`_ plus its bias, then sigmoid. The
    arguments are those of :class:`TextHead`.
    """

    def forward(self, feats: Sequence[Tensor]) -> Tensor:
        """Logits.

        Args:
            feats: The backbone's tuple, its last the summary (B, D).

        Returns:
            (B, K).
        """
        return self.bank.logits(feats[-1], self.text)

    def predict(
        self,
        feats: Sequence[Tensor],
        data_samples: Sequence[Any] | None = None,
    ) -> list[Any]:
        """Scores and labels, as MMPretrain's metrics take them.

        Args:
            feats: As :meth:`forward` takes them.
            data_samples: MMPretrain's, one for each image; None makes new
                ones. Defaults to None.

        Returns:
            The samples with ``pred_score`` (K,) and ``pred_label``.
        """
        scores = self.bank.scores(self(feats))
        if data_samples is None:
            from mmpretrain.structures import DataSample

            data_samples = [DataSample() for _ in scores]
        return [
            sample.set_pred_score(score).set_pred_label(score.argmax())
            for sample, score in zip(data_samples, scores, strict=True)
        ]
