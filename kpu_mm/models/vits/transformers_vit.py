"""Plain ViTs of transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModel,
    CLIPVisionModel,
    DeiTModel,
    SiglipVisionModel,
    ViTModel,
)

from kpu_mm.weights.hub import fetch_folder
from kpu_mm.weights.pretrained import load_transformers, read_config, read_normalization

from .base_vit import BaseViT

_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_HALF = ((0.5,) * 3, (0.5,) * 3)
_CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))


class _Family(NamedTuple):
    """What transformers' ViTs differ in.

    Args:
        model: The class.
        normalization: Mean and standard deviation of the released weights.
        inner: Where in the class its parts are. Defaults to ''.
        masks: Arguments of each layer that must be given as None. Defaults
            to ().
        any_size: Whether positions follow the size of the images without
            being asked to. Defaults to False.
        pooler: Whether it has a pooler, which is part of a classifier.
            Defaults to False.
        norms_class_token: Whether the final norm is the class token's alone.
            Defaults to False.
    """

    model: Any
    normalization: tuple[tuple[float, ...], tuple[float, ...]]
    inner: str = ''
    masks: tuple[str, ...] = ()
    any_size: bool = False
    pooler: bool = False
    norms_class_token: bool = False


_DINO = _Family(AutoModel, _IMAGENET, any_size=True)
FAMILIES = {
    'dinov2': _DINO,
    'dinov2_with_registers': _DINO,
    'dinov3_vit': _DINO,
    'vit': _Family(ViTModel, _HALF, pooler=True),
    'deit': _Family(DeiTModel, _IMAGENET, pooler=True),
    'clip_vision_model': _Family(
        CLIPVisionModel,
        _CLIP,
        'vision_model.',
        masks=('attention_mask', 'causal_attention_mask'),
        norms_class_token=True,
    ),
    'siglip_vision_model': _Family(
        SiglipVisionModel, _HALF, 'vision_model.', masks=('attention_mask',)
    ),
}
# Files of two towers, an image's and a text's.
_TOWERS = {'clip': 'clip_vision_model', 'siglip': 'siglip_vision_model'}
# where they keep their layers and the final norm, by version of transformers
_LAYERS = ('encoder.layer', 'encoder.layers', 'layer', 'model.layer')
_NORMS = ('layernorm', 'post_layernorm', 'norm')


class TransformersViT(BaseViT):
    """A plain ViT of transformers.

    DINOv2 (https://arxiv.org/abs/2304.07193), registers
    (https://arxiv.org/abs/2309.16588), DINOv3
    (https://arxiv.org/abs/2508.10104), ViT (https://arxiv.org/abs/2010.11929),
    DeiT (https://arxiv.org/abs/2012.12877), the vision towers of CLIP
    (https://arxiv.org/abs/2103.00020) and of SigLIP and SigLIP 2
    (https://arxiv.org/abs/2502.14786) of one image size. The summary is the
    class token after the final norm; SigLIP has no such token, but a pooling
    by attention. Maps have passed the final norm, except for those of CLIP,
    whose norm is the class token's alone.

    Args:
        source: A hub name, a local folder with ``config.json`` and
            ``model.safetensors``, or a dict of the model's config (with
            ``model_type``) to start from random weights.

    Raises:
        ValueError: If the model is of another family.
    """

    def __init__(self, source: Any) -> None:
        config, folder, name = source, None, 'random'
        if not isinstance(source, dict):
            name = str(source)
            folder = fetch_folder(name)
            config = read_config(folder)
        kind = config.get('model_type')
        kind = _TOWERS.get(kind, kind) if isinstance(kind, str) else None
        if kind not in FAMILIES:
            raise ValueError(
                f"'{name}' is a {config.get('model_type')!r} model, which is no plain ViT known "
                f"here; pass one of {', '.join(FAMILIES)}, or a model of timm as 'timm:NAME'."
            )
        family = FAMILIES[kind]
        options = dict(add_pooling_layer=False) if family.pooler else {}
        if folder is None:
            built, create = AutoConfig.for_model(**source), family.model
            create = AutoModel.from_config if create is AutoModel else create
            model: Any = create(built, **options)
        else:
            # only masked pre-training reads the mask token
            model = load_transformers(family.model, folder, may_miss=('mask_token',), **options)
        super().__init__(name, model)
        self._family = family
        parts = {name for name, _ in model.named_modules()}
        self._layers = next(path for p in _LAYERS if (path := family.inner + p) in parts)
        self._norm = next(path for p in _NORMS if (path := family.inner + p) in parts)
        self._head = path if (path := f'{family.inner}head') in parts else None
        for part, weight in model.named_parameters():
            # A parameter without a gradient would make DDP stop.
            if part.endswith('mask_token'):
                weight.requires_grad_(False)
        own: Any = model.config
        self.embed_dims = own.hidden_size
        self.num_heads = own.num_attention_heads
        self.patch_size = own.patch_size
        self.class_token = kind != 'siglip_vision_model'
        # DeiT has a second class token, for its distillation.
        registers = getattr(own, 'num_register_tokens', 0)
        self.num_prefix = self.class_token + (kind == 'deit') + registers
        self.mean, self.std = family.normalization
        self._read_normalization(folder)

    def _read_normalization(self, folder: Path | None) -> None:
        """Take mean and deviation from the config, else from beside it."""
        config = self.model.config
        mean, std = (getattr(config, f'image_{key}', None) for key in ('mean', 'std'))
        # An exported student's DINO says nothing if it has ImageNet's.
        default = self._family.normalization if self._family is _DINO else None
        if folder is not None or mean is not None or std is not None:
            mean, std = read_normalization(folder or Path(), mean, std, default)
            self.mean, self.std = tuple(mean), tuple(std)
        if (self.mean, self.std) != default:
            # where an exported student's sentinel has them
            config.image_mean, config.image_std = list(self.mean), list(self.std)

    @property
    def layers(self) -> nn.ModuleList:
        """The layers, the first one first."""
        layers: Any = self.model.get_submodule(self._layers)
        return layers

    @property
    def norm(self) -> nn.Module:
        """What is done to all tokens after the last layer."""
        norm: nn.Module = self.model.get_submodule(self._norm)
        return nn.Identity() if self._family.norms_class_token else norm

    @property
    def pooling(self) -> nn.ModuleList:
        """What serves the summary alone."""
        alone = self._norm if self._family.norms_class_token else self._head
        return nn.ModuleList([] if alone is None else [self.model.get_submodule(alone)])

    def summarise(self, tokens: Tensor) -> Tensor:
        """Tokens after the last layer (B, P + N, C) -> summary (B, C)."""
        norm = self.model.get_submodule(self._norm)
        if self.class_token:
            summary: Tensor = norm(tokens[:, 0])
            return summary
        if self._head is None:
            return norm(tokens).mean(1)
        pooled: Tensor = self.model.get_submodule(self._head)(norm(tokens))
        return pooled

    def save(self, folder: Path) -> None:
        """Write a folder that can be the source of a ViT.

        Args:
            folder: The folder; it is made.
        """
        # It may be a path of this machine.
        self.model.config._name_or_path = ''
        self.model.save_pretrained(folder)

    def _embed(self, images: Tensor) -> tuple[Tensor, Any]:
        family = self._family
        inner = self.model.get_submodule(family.inner.removesuffix('.'))
        options: dict[str, Any] = dict.fromkeys(family.masks)
        if hasattr(inner, 'rope_embeddings'):
            options = dict(position_embeddings=inner.rope_embeddings(images))
        # (B, 3, H, W) -> (B, P + N, C)
        asks = {} if family.any_size else dict(interpolate_pos_encoding=True)
        tokens = inner.embeddings(images, **asks)
        if hasattr(inner, 'pre_layrnorm'):
            tokens = inner.pre_layrnorm(tokens)
        return tokens, options

    def _is_embedding(self, name: str) -> bool:
        parts = ('embeddings.', 'rope_embeddings.', 'pre_layrnorm.')
        return name.removeprefix(self._family.inner).startswith(parts)
