"""The interface of a plain ViT, whose layers can be run in spans."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kpu_mm.weights.state_dict import checksum

from ..encoder import nearest_size, to_map
from ..frozen import EvalModule


class ViTTokens(NamedTuple):
    """Tokens on their way through the layers of a ViT.

    Args:
        tokens: (B, P + N, C): class token and registers, where there are
            any, then patches row by row.
        grid: Rows and columns of the patches, N = rows * columns.
        options: What each layer takes besides tokens, such as rotary
            positions.
    """

    tokens: Tensor
    grid: tuple[int, int]
    options: Sequence[Mapping[str, Any]]


class BaseViT(EvalModule):
    """A plain ViT: patches, layers of global attention, a final norm.

    Its maps and its summary are the library's own, bit for bit. It is always
    in eval mode, as DINOv3 perturbs its positions at random in train mode.
    Whether it is frozen is its owner's decision.

    Args:
        name: Where the weights come from, for messages and checkpoints;
            'random' for random weights.
        model: The library's model.

    Attributes:
        embed_dims: Channels C of the tokens.
        num_heads: Heads of the attention.
        patch_size: Side of a patch in pixels.
        num_prefix: Number P of tokens before those of the patches.
        class_token: Whether the first of them is a class token.
        image_size: Height and width of all images; None if any multiple of
            the patch will do.
        mean: Mean of the RGB channels in units of [0, 1], with which it was
            trained.
        std: Standard deviation, as ``mean``.
    """

    embed_dims: int
    num_heads: int
    patch_size: int
    num_prefix: int
    class_token: bool
    image_size: tuple[int, int] | None = None
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __init__(self, name: str, model: nn.Module) -> None:
        super().__init__()
        self.name = name
        self.model: Any = model.requires_grad_(True).eval()

    @property
    @abstractmethod
    def layers(self) -> nn.ModuleList:
        """The layers, the first one first."""

    @property
    @abstractmethod
    def norm(self) -> nn.Module:
        """What is done to all tokens after the last layer."""

    @property
    @abstractmethod
    def pooling(self) -> nn.ModuleList:
        """What serves the summary alone."""

    @abstractmethod
    def summarise(self, tokens: Tensor) -> Tensor:
        """Tokens after the last layer (B, P + N, C) -> summary (B, C)."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write a folder that can be the source of a ViT.

        Args:
            folder: The folder; it is made.
        """

    @abstractmethod
    def _embed(self, images: Tensor) -> tuple[Tensor, Any]:
        """Tokens of images (B, 3, H, W), and the options of all layers."""

    @abstractmethod
    def _is_embedding(self, name: str) -> bool:
        """Whether a weight of the model comes before the first layer."""

    @property
    def num_layers(self) -> int:
        """Number of layers."""
        return len(self.layers)

    def embed(self, images: Tensor) -> ViTTokens:
        """Resize to the nearest size that the ViT takes, and embed.

        Args:
            images: Images normalised with :attr:`mean` and :attr:`std`,
                (B, 3, H, W).
        """
        patch = self.patch_size
        size = self.image_size or nearest_size(images.shape[-2], images.shape[-1], patch)
        # Resizing to the same size changes nothing, but a traced program
        # must not depend on the size it was traced with. Plain bilinear, as
        # ONNX has no antialiased bicubic, with which teachers, which are not
        # exported, resize raw images beforehand (BaseTeacher.prepare).
        if torch.jit.is_tracing() or size != tuple(images.shape[-2:]):
            images = F.interpolate(images, size, mode='bilinear')
        with self.in_autocast(images.device) as vit:
            tokens, options = vit._embed(images.to(next(vit.parameters()).dtype))
        if isinstance(options, dict):
            options = [options] * self.num_layers
        return ViTTokens(tokens, (size[0] // patch, size[1] // patch), options)

    def run(
        self, tokens: Tensor, options: Sequence[Mapping[str, Any]], start: int, stop: int
    ) -> Tensor:
        """Pass tokens (B, P + N, C) through layers start .. stop - 1."""
        with self.in_autocast(tokens.device) as vit:
            for layer, own in zip(vit.layers[start:stop], options[start:stop], strict=True):
                out = layer(tokens, **own)
                # CLIP's layers give a tuple
                tokens = out[0] if isinstance(out, tuple) else out
        return tokens

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Run the whole ViT.

        Args:
            images: Images normalised with :attr:`mean` and :attr:`std`,
                (B, 3, H, W).

        Returns:
            Summary (B, C) and the map of patch tokens (B, C, h, w), as they
            leave the ViT.
        """
        tokens, grid, options = self.embed(images)
        tokens = self.run(tokens, options, 0, self.num_layers)
        m = to_map(self.norm(tokens)[:, self.num_prefix :], grid)
        return self.summarise(tokens), m

    def depth_of(self, name: str) -> int:
        """0 for the embedding, i + 1 for layer i, one more for the rest."""
        inner = name.removeprefix('model.')
        if self._is_embedding(inner):
            return 0
        inside = f'{next(n for n, m in self.model.named_modules() if m is self.layers)}.'
        if not inner.startswith(inside):
            return self.num_layers + 1
        return 1 + int(inner.removeprefix(inside).split('.')[0])

    def checksum(self) -> str:
        """SHA-256 over the weights; an unused mask token does not count."""
        return checksum(p for name, p in self.model.named_parameters() if 'mask_token' not in name)
