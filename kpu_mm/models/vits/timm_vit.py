"""Plain ViTs of timm."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import save_file
from timm.models import is_model_in_modules
from timm.models.beit import Beit
from timm.models.deit import VisionTransformerDistilled
from timm.models.eva import Eva
from timm.models.naflexvit import NaFlexVit
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from kpu_mm.weights.hub import fetch_folder
from kpu_mm.weights.pretrained import read_config
from kpu_mm.weights.timm_models import check_options, family_of, load_timm

from .base_vit import BaseViT

_PREFIX = 'timm:'
_KINDS = (VisionTransformer, VisionTransformerDistilled, Eva, Beit, NaFlexVit)
# Of timm's modules with plain ViTs, those whose positions must be asked to
# follow the size of the images.
_ASKED = ('vision_transformer', 'deit', 'eva')
_MODULES = (*_ASKED, 'beit', 'naflexvit')
# what is done before the first layer
_EMBEDDING = (
    *('patch_embed', 'cls_token', 'dist_token', 'reg_token', 'pos_embed', 'norm_pre'),
    *('embeds', 'rope', 'rel_pos_bias'),
)


class TimmViT(BaseViT):
    """A plain ViT of timm, such as MAE, EVA-02, BEiT, DeiT, SigLIP 2, RADIO.

    timm (https://github.com/huggingface/pytorch-image-models). The summary
    is what timm gives the model's classifier: the class token, the mean of
    all patches, or a pooling by attention. Maps have passed the final norm,
    where timm has one before the pooling. BEiT has relative positions of one
    size, to which all its images are resized.

    Args:
        source: ``'timm:NAME'`` with a tag for hub weights, such as
            'timm:vit_base_patch16_siglip_224.v2_webli'; a local folder that
            timm's ``save_for_hf`` wrote; or a dict with ``architecture`` and
            timm's ``model_args`` to start from random weights.

    Raises:
        ValueError: If timm has no such model, or it is no plain ViT.
    """

    def __init__(self, source: Any) -> None:
        config: dict[str, Any] = {}
        name, checkpoint = 'random', None
        if isinstance(source, dict):
            config = source
        elif str(source).startswith(_PREFIX):
            name = str(source)
            config = dict(architecture=name.removeprefix(_PREFIX))
        else:
            name = str(source)
            folder = fetch_folder(name)
            config = read_config(folder)
            # timm's save_for_hf writes the second one unless it is asked not to
            files = [folder / file for file in ('model.safetensors', 'pytorch_model.bin')]
            checkpoint = next((file for file in files if file.is_file()), files[0])
        self._check(config, name)
        architecture, args = config['architecture'], dict(config.get('model_args') or {})
        if 'num_classes' in config:
            args['num_classes'] = config['num_classes']
        if is_model_in_modules(family_of(architecture), _ASKED):
            args['dynamic_img_size'] = True
        if isinstance(source, dict):
            model: Any = timm.create_model(architecture, **args)
        else:
            model = load_timm(architecture, checkpoint, args)
        kind = type(model)
        if kind not in _KINDS:
            raise ValueError(_refusal(architecture))
        model.reset_classifier(0)
        embed = model.embeds if kind is NaFlexVit else model.patch_embed
        super().__init__(name, model)
        args['num_classes'] = 0
        shown = model.pretrained_cfg | (config.get('pretrained_cfg') or {})
        self.mean, self.std = (tuple(shown[key]) for key in ('mean', 'std'))
        # timm's own form of a config, which it reads, too
        self._config = dict(
            architecture=architecture,
            num_classes=0,
            model_args={k: v for k, v in args.items() if k != 'num_classes'},
            pretrained_cfg=dict(mean=list(self.mean), std=list(self.std)),
        )
        self.embed_dims = model.embed_dim
        self.num_heads = model.blocks[0].attn.num_heads
        rows, columns = embed.patch_size
        if rows != columns:
            raise ValueError(
                f"timm's '{architecture}' has patches of {rows} x {columns} pixels, not square."
            )
        self.patch_size = rows
        self.num_prefix = model.num_prefix_tokens
        token = getattr(embed if kind is NaFlexVit else model, 'cls_token', None)
        self.class_token = token is not None
        if kind is Beit:
            height, width = model.patch_embed.img_size
            self.image_size = (height, width)

    @staticmethod
    def reads(source: object) -> bool:
        """Whether a source is a model of timm.

        Args:
            source: What a sentinel is built from.
        """
        if isinstance(source, dict):
            return 'architecture' in source
        text = str(source)
        if text.startswith(_PREFIX) or not Path(text).expanduser().is_dir():
            return text.startswith(_PREFIX)
        return 'architecture' in read_config(Path(text).expanduser())

    @staticmethod
    def _check(config: dict[str, Any], name: str) -> None:
        """Refuse a config that may come from anybody, and does not fit."""
        architecture, args = config['architecture'], config.get('model_args') or {}
        if not isinstance(architecture, str) or not isinstance(args, dict):
            raise ValueError(f"'{name}': architecture must be a name and model_args a dict.")
        check_options(args)
        if not is_model_in_modules(family_of(architecture), _MODULES):
            raise ValueError(_refusal(architecture))

    @property
    def layers(self) -> nn.ModuleList:
        """The layers, the first one first."""
        layers: Any = self.model.blocks
        return layers

    @property
    def norm(self) -> nn.Module:
        """What is done to all tokens after the last layer."""
        norm: nn.Module = self.model.norm
        return norm

    @property
    def pooling(self) -> nn.ModuleList:
        """What serves the summary alone."""
        parts = (getattr(self.model, key, None) for key in ('attn_pool', 'fc_norm'))
        return nn.ModuleList(part for part in parts if part is not None)

    def summarise(self, tokens: Tensor) -> Tensor:
        """Tokens after the last layer (B, P + N, C) -> summary (B, C)."""
        summary: Tensor = self.model.forward_head(self.norm(tokens), pre_logits=True)
        return summary

    def save(self, folder: Path) -> None:
        """Write a folder that can be the source of a ViT.

        Args:
            folder: The folder; it is made.
        """
        folder.mkdir(parents=True, exist_ok=True)
        state = {name: value.contiguous() for name, value in self.model.state_dict().items()}
        save_file(state, folder / 'model.safetensors', metadata={'format': 'pt'})
        text = json.dumps(self._config, indent=2) + '\n'
        (folder / 'config.json').write_text(text, encoding='utf-8')

    def _embed(self, images: Tensor) -> tuple[Tensor, Any]:
        model = self.model
        if isinstance(model, NaFlexVit):
            made = model._forward_embeds(images, None, None, None)
            return made['patches'], self._rotary(made.get('rope_embeds'), model.rope_is_mixed)
        patches = model.patch_embed(images)
        if isinstance(model, Beit):
            # (1, 1, C) -> (B, 1, C)
            token = model.cls_token.expand(patches.shape[0], -1, -1)
            tokens = torch.cat([token, patches], 1)
            if model.pos_embed is not None:
                tokens = tokens + model.pos_embed
            shared = model.rel_pos_bias
            return tokens, dict(shared_rel_pos_bias=None if shared is None else shared())
        if isinstance(model, Eva):
            tokens, rope = model._pos_embed(patches)
            return model.norm_pre(tokens), self._rotary(rope, model.rope_mixed)
        return model.norm_pre(model._pos_embed(patches)), {}

    def _rotary(self, rope: Any, of_layers: bool) -> Any:
        """Rotary positions as options of the layers, or one of each layer."""
        if rope is None:
            return {}
        return [dict(rope=r) for r in rope] if of_layers else dict(rope=rope)

    def _is_embedding(self, name: str) -> bool:
        return name.startswith(_EMBEDDING)


def _refusal(architecture: str) -> str:
    return (
        f"timm's '{architecture}' is no plain ViT: it has windows, stages or a stem of its own; "
        f'choose one of its modules {", ".join(_MODULES)}.'
    )
