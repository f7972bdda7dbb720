"""ZeroShotSegHead: every position of a map against text embeddings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Size, Tensor

from kpu_mm.registry import MODELS
from kpu_mm.structures import bilinear

from .text_head import TextHead


@MODELS.register_module()
class ZeroShotSegHead(TextHead):
    """Zero-shot segmentation, as a decode head of MMSegmentation.

    `MaskCLIP <https://arxiv.org/abs/2112.01071>`_ saw that patch tokens may
    be read by the layers that CLIP has after its pooling, and compared with
    text one by one. It also leaves out the last block's attention, which a
    student of the last block's tokens cannot: here the tokens are read as
    they are. See :meth:`CLIPTeacher.to_text_space`. The arguments are those
    of :class:`TextHead`.

    Attributes:
        align_corners: How logits are resized, for MMSegmentation.
    """

    align_corners = False

    @property
    def out_channels(self) -> int:
        """Channels of the logits, for MMSegmentation."""
        return self.num_classes

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Logits.

        Args:
            inputs: The backbone's maps; the last is the CLIP's patch tokens
                after its final norm, (B, C, H, W).

        Returns:
            (B, K, H, W).
        """
        tokens = self.bank.teacher.to_text_space(inputs[-1])  # (B, D, H, W)
        logits = self.bank.logits(
            tokens.permute(0, 2, 3, 1).contiguous(), self.text
        )
        return logits.permute(0, 3, 1, 2)

    def predict(
        self,
        inputs: Sequence[Tensor],
        batch_img_metas: Sequence[Mapping[str, Any]],
        test_cfg: Any,
    ) -> Tensor:
        """Logits at the size of the network's input.

        Args:
            inputs: As :meth:`forward` takes them.
            batch_img_metas: Of each image, with 'img_shape', and
                'pad_shape' if it was padded.
            test_cfg: Not used: MMSegmentation passes it to every head.

        Returns:
            (B, K, H, W).

        Raises:
            ValueError: If there is one class only.
        """
        if self.num_classes < 2:
            raise ValueError(
                f'every pixel would be {self.classes[0]!r}: segmentation '
                "needs two classes at least; add one such as 'background'."
            )
        meta = batch_img_metas[0]
        size = meta['img_shape']
        # MMSegmentation's windows come as a Size, and have no padding
        if not isinstance(size, Size):
            size = meta.get('pad_shape', size)
        return bilinear(self(inputs), (size[0], size[1]))
