"""The one wrapper of DINO's vision transformers.

It is the sentinel in a KPUBackbone, the whole of a ViTBackbone, and the model
of a DINOTeacher.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel

from kpu_mm.weights.hub import fetch_folder
from kpu_mm.weights.pretrained import load_transformers, read_config
from kpu_mm.weights.state_dict import checksum

from .encoder import nearest_size, to_map
from .frozen import EvalModule

_FAMILIES = ('dinov2', 'dinov2_with_registers', 'dinov3_vit')
# where they keep their layers and the final norm, by version of transformers
_LAYERS = ('encoder.layer', 'layer', 'model.layer')
_NORMS = ('layernorm', 'norm')


class ViTTokens(NamedTuple):
    """Tokens on their way through the layers of a ViT.

    Args:
        tokens: (B, P + N, C): CLS, registers, then patches row-major.
        grid: Rows and columns of the patches, N = rows * columns.
        rope: Cosine and sine of rotary positions, where the model has them.
    """

    tokens: Tensor
    grid: tuple[int, int]
    rope: tuple[Tensor, Tensor] | None


class DINOViT(EvalModule):
    """DINOv2 (with or without registers) or DINOv3 ViT from transformers.

    DINOv2 (https://arxiv.org/abs/2304.07193), registers
    (https://arxiv.org/abs/2309.16588), DINOv3
    (https://arxiv.org/abs/2508.10104). Always in eval mode: DINOv3 perturbs
    its positions at random in train mode. Whether it is frozen is its
    owner's decision.

    Args:
        source: A hub name, a local folder with ``config.json`` and
            ``model.safetensors``, or a dict of the model's config (with
            ``model_type``) to start from random weights.

    Raises:
        ValueError: If the model is not a DINO vision transformer.
    """

    def __init__(self, source: str | Path | dict[str, Any]) -> None:
        super().__init__()
        config: Any = source
        self.name = 'random'
        if not isinstance(source, dict):
            self.name = str(source)
            folder = fetch_folder(self.name)
            config = read_config(folder)
        kind = config.get('model_type')
        if not isinstance(kind, str) or kind not in _FAMILIES:
            raise ValueError(
                f"'{self.name}' is a {kind!r} model, and no vision "
                f'transformer of DINO; pass one of {", ".join(_FAMILIES)}.'
            )
        if isinstance(source, dict):
            model = AutoModel.from_config(AutoConfig.for_model(**source))
        else:
            # only masked pre-training reads the mask token
            model = load_transformers(AutoModel, folder, may_miss=('mask_token',))
        config = model.config
        model.requires_grad_(True)
        # A parameter without a gradient would make DDP stop.
        model.get_parameter('embeddings.mask_token').requires_grad_(False)
        self.model: Any = model.eval()
        self._rope = hasattr(model, 'rope_embeddings')
        parts = {name for name, _ in model.named_modules()}
        self._layers = next(path for path in _LAYERS if path in parts)
        self._norm = next(path for path in _NORMS if path in parts)
        self.embed_dims: int = config.hidden_size
        self.num_layers: int = config.num_hidden_layers
        self.num_heads: int = config.num_attention_heads
        self.patch_size: int = config.patch_size
        self.num_prefix: int = 1 + getattr(config, 'num_register_tokens', 0)

    def embed(self, images: Tensor) -> ViTTokens:
        """Resize to the nearest multiple of the patch size and embed.

        Args:
            images: Normalised images, (B, 3, H, W).
        """
        patch = self.patch_size
        size = nearest_size(images.shape[-2], images.shape[-1], patch)
        # Resizing to the same size changes nothing, but a traced program
        # must not depend on the size it was traced with. Plain bilinear, as
        # ONNX has no antialiased bicubic, with which teachers, which are not
        # exported, resize raw images beforehand (BaseTeacher.prepare).
        if torch.jit.is_tracing() or size != tuple(images.shape[-2:]):
            images = F.interpolate(images, size, mode='bilinear')
        grid = (size[0] // patch, size[1] // patch)
        with self.in_autocast(images.device) as vit:
            images = images.to(vit.norm.weight.dtype)
            rope = vit.model.rope_embeddings(images) if self._rope else None
            return ViTTokens(vit.model.embeddings(images), grid, rope)

    def run(
        self, tokens: Tensor, rope: tuple[Tensor, Tensor] | None, start: int, stop: int
    ) -> Tensor:
        """Pass tokens (B, P + N, C) through layers start .. stop - 1."""
        options = {} if rope is None else dict(position_embeddings=rope)
        with self.in_autocast(tokens.device) as vit:
            layers: Any = vit.model.get_submodule(self._layers)
            for layer in layers[start:stop]:
                tokens = layer(tokens, **options)
        return tokens

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Run the whole ViT on normalised images (B, 3, H, W).

        Returns:
            CLS token (B, C) and the map of patch tokens (B, C, h, w), both
            after the final norm.
        """
        tokens, grid, rope = self.embed(images)
        tokens = self.norm(self.run(tokens, rope, 0, self.num_layers))
        return tokens[:, 0], to_map(tokens[:, self.num_prefix :], grid)

    @property
    def norm(self) -> nn.LayerNorm:
        """The final LayerNorm, over the last axis."""
        norm: Any = self.model.get_submodule(self._norm)
        return norm

    def depth_of(self, name: str) -> int:
        """0 for the embedding, i + 1 for layer i, one more for the norm."""
        inner = name.removeprefix('model.')
        if inner.startswith(('embeddings.', 'rope_embeddings.')):
            return 0
        layer = inner.removeprefix(f'{self._layers}.')
        if layer == inner:
            return self.num_layers + 1
        return 1 + int(layer.split('.')[0])

    def checksum(self) -> str:
        """SHA-256 over the weights; the unused mask token does not count."""
        return checksum(p for name, p in self.model.named_parameters() if 'mask_token' not in name)
