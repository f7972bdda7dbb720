"""The sentinel: a DINO vision transformer that is walked span by span."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel

from kpu_mm.weights.hub import fetch_folder
from kpu_mm.weights.pretrained import load_transformers, read_config
from kpu_mm.weights.state_dict import checksum

IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)


class _Family(NamedTuple):
    """Where a model family of transformers keeps its parts."""

    layers: tuple[str, ...]  # by version of transformers, the first that fits
    norm: str
    rope: bool


_FAMILIES = {
    'dinov2': _Family(('encoder.layer',), 'layernorm', rope=False),
    'dinov2_with_registers': _Family(
        ('encoder.layer',), 'layernorm', rope=False
    ),
    'dinov3_vit': _Family(('layer', 'model.layer'), 'norm', rope=True),
}


class SentinelTokens(NamedTuple):
    """Tokens on their way through the sentinel.

    Args:
        tokens: (B, P + N, C): CLS, registers, then patches row-major.
        grid: Rows and columns of the patches, N = rows * columns.
        rope: Cosine and sine of rotary positions, where the model has them.
    """

    tokens: Tensor
    grid: tuple[int, int]
    rope: tuple[Tensor, Tensor] | None


def _resolve(model: nn.Module, paths: tuple[str, ...]) -> nn.ModuleList:
    for path in paths:
        try:
            return model.get_submodule(path)  # type: ignore[return-value]
        except AttributeError:
            continue
    raise AttributeError(
        f'{type(model).__name__} keeps its layers in none of {paths}: this '
        'version of transformers is not supported; install transformers '
        '>=4.56,<5.'
    )


def _check_family(name: str, family: Any) -> None:
    if not isinstance(family, str) or family not in _FAMILIES:
        raise ValueError(
            f'{name} is a {family!r} model; the sentinel must be one of '
            f'{", ".join(_FAMILIES)}.'
        )


class Sentinel(nn.Module):
    """DINOv2 (with or without registers) or DINOv3 ViT from transformers.

    DINOv2 (https://arxiv.org/abs/2304.07193), registers
    (https://arxiv.org/abs/2309.16588), DINOv3
    (https://arxiv.org/abs/2508.10104). Always in eval mode: DINOv3 perturbs
    its positions at random in train mode. Whether it is frozen is the
    backbone's decision.

    Args:
        source: A hub name, a local folder with ``config.json`` and
            ``model.safetensors``, or a dict of the model's config (with
            ``model_type``) to start from random weights.

    Raises:
        ValueError: If the model is not a DINO vision transformer.
    """

    def __init__(self, source: str | dict[str, Any]) -> None:
        super().__init__()
        if isinstance(source, str):
            self.name = source
            folder = fetch_folder(source)
            _check_family(source, read_config(folder).get('model_type'))
            model = load_transformers(
                AutoModel, folder, may_miss=('mask_token',)
            )
        else:
            self.name = 'random'
            _check_family('the config', source.get('model_type'))
            model = AutoModel.from_config(AutoConfig.for_model(**source))
        config: Any = model.config
        family = _FAMILIES[config.model_type]
        model.requires_grad_(True)
        # Never used: masks belong to DINO's own pre-training.
        model.get_parameter('embeddings.mask_token').requires_grad_(False)
        self.model: Any = model.eval()
        self._layers = family.layers
        self._norm = family.norm
        self._rope = family.rope
        self.embed_dims: int = config.hidden_size
        self.num_layers: int = config.num_hidden_layers
        self.num_heads: int = config.num_attention_heads
        self.patch_size: int = config.patch_size
        self.num_prefix: int = 1 + getattr(config, 'num_register_tokens', 0)

    def train(self, mode: bool = True) -> Sentinel:
        """Stay in eval mode whatever ``mode`` says."""
        return super().train(False)

    def fit_size(self, height: int, width: int) -> tuple[int, int]:
        """The nearest multiple of the patch size, one patch at least."""
        p = self.patch_size
        return max(1, (height + p // 2) // p) * p, max(
            1, (width + p // 2) // p
        ) * p

    def embed(self, images: Tensor) -> SentinelTokens:
        """Resize to the nearest multiple of the patch size and embed.

        Args:
            images: Normalised images, (B, 3, H, W).
        """
        size = self.fit_size(images.shape[-2], images.shape[-1])
        # Resizing to the same size changes nothing, but a traced program
        # must not depend on the size it was traced with.
        if torch.jit.is_tracing() or size != tuple(images.shape[-2:]):
            images = F.interpolate(
                images, size, mode='bilinear', align_corners=False
            )
        grid = (size[0] // self.patch_size, size[1] // self.patch_size)
        rope = self.model.rope_embeddings(images) if self._rope else None
        return SentinelTokens(self.model.embeddings(images), grid, rope)

    def run(
        self,
        tokens: Tensor,
        rope: tuple[Tensor, Tensor] | None,
        start: int,
        stop: int,
    ) -> Tensor:
        """Pass tokens (B, P + N, C) through layers start .. stop - 1."""
        for layer in _resolve(self.model, self._layers)[start:stop]:
            if rope is None:
                tokens = layer(tokens)
            else:
                tokens = layer(tokens, position_embeddings=rope)
        return tokens

    def norm(self, tokens: Tensor) -> Tensor:
        """The final LayerNorm, over the last axis."""
        out: Tensor = self.final_norm(tokens)
        return out

    @property
    def final_norm(self) -> nn.Module:
        """The module of the final LayerNorm."""
        norm: nn.Module = self.model.get_submodule(self._norm)
        return norm

    def depth_of(self, name: str) -> int:
        """0 for the embedding, i + 1 for layer i, one more for the norm."""
        inner = name.removeprefix('model.')
        if inner.startswith(('embeddings.', 'rope_embeddings.')):
            return 0
        for path in self._layers:
            if inner.startswith(path + '.'):
                return 1 + int(inner.removeprefix(path + '.').split('.')[0])
        return self.num_layers + 1

    def checksum(self) -> str:
        """SHA-256 over the weights; the unused mask token does not count."""
        return checksum(
            p
            for name, p in self.model.named_parameters()
            if 'mask_token' not in name
        )
