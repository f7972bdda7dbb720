"""CLIP, SigLIP and their kin, from open_clip."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import open_clip
import torch
from open_clip.modified_resnet import ModifiedResNet
from open_clip.timm_model import TimmModel
from torch import Tensor

from kpu_mm.registry import MODELS

from ..encoder import to_map
from .base_teacher import BaseTeacher
from .clip_loading import find_clip, no_remote_code


@MODELS.register_module()
class CLIPTeacher(BaseTeacher):
    """The image tower of a CLIP.

    `CLIP <https://arxiv.org/abs/2103.00020>`_,
    `SigLIP 2 <https://arxiv.org/abs/2502.14786>`_. One pass gives the
    summary, which is ``encode_image`` before its L2 norm, and the map, which
    is the last block's patch tokens after the final norm.

    The map of CLIP's ResNet is its last stage's, before attention pooling.

    The model takes one size only; images of another are resized to it.
    Tags that need QuickGELU get it even with a GELU config. A weights file
    says neither its activation nor its normalisation, so the caller must.

    Args:
        model: Name of an open_clip config such as 'ViT-B-16',
            'local-dir:FOLDER' with open_clip_config.json and
            open_clip_model.safetensors, or 'hf-hub:NAME'.
        pretrained: Tag of open_clip such as 'openai', or a weights file;
            None for a folder or hub model. Defaults to None.
        quick_gelu: Activation of the weights; needed for a file with a GELU
            config. Defaults to None.
        mean: Mean in units of [0, 1]; needed for a file. Defaults to None.
        std: Standard deviation, as ``mean``. Defaults to None.
        resolution: Interpolate positions to this (H, W); None keeps the
            model's own size. Defaults to None.
        with_text: Keep the whole model, as :attr:`model`, for zero-shot
            work; else only the image tower stays in memory. Defaults to
            False.

    Raises:
        FileNotFoundError: If files are missing while the hub is away.
        RuntimeError: If the weights are broken or don't fit.
        ValueError: If something needed is unknown or contradicts.
    """

    def __init__(
        self,
        model: str,
        pretrained: str | None = None,
        quick_gelu: bool | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        resolution: tuple[int, int] | None = None,
        with_text: bool = False,
    ) -> None:
        source = find_clip(model, pretrained, quick_gelu, mean, std)
        built: Any = source.build(resolution)
        if type(built) not in (open_clip.CLIP, open_clip.CustomTextCLIP):
            raise ValueError(
                f"'{model}' is a {type(built).__name__}, whose features "
                'CLIPTeacher cannot read; choose a CLIP or SigLIP'
            )
        if not hasattr(built.visual, 'forward_intermediates'):
            raise ValueError(
                f"the image tower of '{model}' shows no map; choose a ViT"
            )
        size = built.visual.image_size
        height, width = (size, size) if isinstance(size, int) else size
        super().__init__(source.mean, source.std, (height, width))
        self.name = source.name
        self.model = built if with_text else None
        self.visual = built.visual
        self.probe()

    def extract(
        self, images: Tensor, mask: Tensor | None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Run the image tower.

        Args:
            images: Normalised images, (B, 3, H, W).
            mask: Not used: padding is zero and takes part in attention.

        Returns:
            Image embedding (B, D) and the map of patch tokens (B, C, H, W).
        """
        out = self.visual.forward_intermediates(
            images,
            indices=1,
            normalize_intermediates=True,
            output_fmt='NCHW',
        )
        return out['image_features'], tuple(out['image_intermediates'])

    @torch.no_grad()
    def to_text_space(self, m: Tensor) -> Tensor:
        """Read each patch token as the tower reads its pooled one.

        The map is before the layers that lead into the space of text
        embeddings. This gives what the tower makes of an image all of whose
        tokens are the same one: its projection, or for attention pooling
        (SigLIP; a ResNet, whose pooling's positions are left out) what the
        pooling makes of one value.

        Args:
            m: The map that :meth:`extract` gives, or a student's of the
                same kind, (B, C, H, W).

        Returns:
            (B, D, H, W), D as in the summary.
        """
        tokens = m.flatten(2).transpose(1, 2).contiguous()  # (B, N, C)
        if isinstance(self.visual, TimmModel):
            trunk = self.visual.trunk
            alike = tokens.flatten(0, 1)[:, None].expand(
                -1, trunk.num_prefix_tokens + 1, -1
            )
            read = self.visual.head(trunk.forward_head(alike))
            read = read.unflatten(0, tokens.shape[:2])
        elif isinstance(self.visual, ModifiedResNet):
            pool = self.visual.attnpool
            read = pool.c_proj(pool.v_proj(tokens))
        else:
            read = tokens @ self.visual.proj
        return to_map(read, (m.shape[-2], m.shape[-1]))

    def tokenizer(self) -> Callable[[list[str]], Tensor]:
        """The tokenizer of the text tower.

        Returns:
            Texts to token ids, (B, context length).

        Raises:
            FileNotFoundError: If its files are not at hand.
        """
        try:
            with no_remote_code():
                return open_clip.get_tokenizer(self.name)
        except (OSError, ValueError) as error:
            raise FileNotFoundError(
                f"The tokenizer of '{self.name}' cannot be read: put "
                'tokenizer.json and tokenizer_config.json beside its '
                'open_clip_config.json, and use local-dir:FOLDER as model.'
            ) from error
