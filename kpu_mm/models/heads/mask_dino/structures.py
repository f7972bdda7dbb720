"""What crosses the borders between the parts of Mask DINO.

B images; N queries; K class outputs; C channels; (H, W) the canvas, which is
the padded size of the batch; (h, w) its grid at stride 4; S cells over all
levels; M objects of an image.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ...layers.deform_attention import LevelShapes


class PixelFeatures(NamedTuple):
    """What the pixel decoder makes of the backbone's maps.

    Args:
        masks: Mask features at stride 4, (B, C, h, w).
        memory: Encoded cells of all levels, (B, S, C), levels in the
            decoder's order, which is the encoder's reversed.
        shapes: (H_l, W_l) of each level in the same order.
    """

    masks: Tensor
    memory: Tensor
    shapes: LevelShapes


class Predictions(NamedTuple):
    """One prediction set.

    Masks stay factorised: a loss needs few of them, and none at all pixels.

    Args:
        logits: Class logits, (B, N, K).
        boxes: (cx, cy, w, h) over the canvas, (B, N, 4).
        mask_queries: (B, N, C); their dot products with the mask features
            are the mask logits.
    """

    logits: Tensor
    boxes: Tensor
    mask_queries: Tensor

    def mask_logits(self, mask_features: Tensor) -> Tensor:
        """Render the masks of all queries.

        Args:
            mask_features: (B, C, h, w).

        Returns:
            (B, N, h, w).
        """
        return torch.einsum('bnc,bchw->bnhw', self.mask_queries, mask_features)


class Queries(NamedTuple):
    """Where the decoder starts.

    Args:
        content: (B, N, C).
        references: Logits of the reference boxes (cx, cy, w, h), (B, N, 4).
        selected: The encoder's own predictions of these queries; None for
            learned queries.
    """

    content: Tensor
    references: Tensor
    selected: Predictions | None = None


class Target(NamedTuple):
    """The objects of one image.

    Args:
        labels: (M,) int64.
        boxes: (cx, cy, w, h) over the canvas, (M, 4).
        masks: (M, H, W) bool.
    """

    labels: Tensor
    boxes: Tensor
    masks: Tensor


class Pairs(NamedTuple):
    """Which query of one image stands for which of its objects.

    Args:
        queries: (P,) int64.
        objects: (P,) int64, pairs of one object side by side.
    """

    queries: Tensor
    objects: Tensor


class DenoisingQueries(NamedTuple):
    """Noised ground truth that the decoder repairs beside its own queries.

    Args:
        content: Embeddings of the noised labels, (B, D, C), D = groups *
            largest object count of the batch.
        references: Logits of the noised boxes, (B, D, 4).
        blocked: Self-attention mask of denoising and matching queries, (D +
            N, D + N) bool, True where a row may not look.
        pairs: Slot and object of every noised object, one for each image.
        groups: How often every object appears; 0 without queries.
    """

    content: Tensor
    references: Tensor
    blocked: Tensor
    pairs: list[Pairs]
    groups: int


class HeadOutputs(NamedTuple):
    """All predictions of one forward pass.

    Args:
        matching: The initial prediction, then one of each decoder layer, of
            the N matching queries.
        denoising: The same of the D denoising queries; empty if the forward
            pass had none.
        selected: The encoder's predictions; None for learned queries.
        mask_features: (B, C, h, w).
    """

    matching: tuple[Predictions, ...]
    denoising: tuple[Predictions, ...]
    selected: Predictions | None
    mask_features: Tensor
