"""CLIP, SigLIP and their kin, from open_clip, with weights that fit or none.

open_clip only logs a warning, or nothing at all, when it leaves a model at
random, activates it with another GELU than it was trained with, or forgets
the mean and deviation of its images. All this is settled here before a model
is built.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, NamedTuple

import open_clip
import torch
from open_clip.modified_resnet import ModifiedResNet
from open_clip.pretrained import get_pretrained_cfg
from open_clip.timm_model import TimmModel
from torch import Tensor
from transformers import dynamic_module_utils

from kpu_mm.registry import MODELS
from kpu_mm.structures import Features
from kpu_mm.weights.checkpoint_file import find_fault, is_legacy, refusal
from kpu_mm.weights.hub import OPEN_CLIP, fetch_file, fetch_folder
from kpu_mm.weights.pretrained import read_config, stated_normalization

from ..encoder import to_map
from .base_teacher import BaseTeacher


@MODELS.register_module()
class CLIPTeacher(BaseTeacher):
    """The image tower of a CLIP.

    `CLIP <https://arxiv.org/abs/2103.00020>`_,
    `SigLIP 2 <https://arxiv.org/abs/2502.14786>`_. One pass gives the
    summary, which is ``encode_image`` before its L2 norm, and the map, which
    is the last block's patch tokens after the final norm.

    The map of CLIP's ResNet is its last stage's, before attention pooling.
    The model takes one size only; images of another are resized to it, with
    the interpolation of the model's own preprocessing
    (``visual.preprocess_cfg``), which a tag or a folder states. For a file it
    is that of the tags of its config where they agree, else open_clip's
    default. Tags that need QuickGELU get it even with a GELU config. A weights file
    states neither its activation nor its normalisation: the config must.

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
        given = stated_normalization(mean, std)
        source = _find(model, pretrained, quick_gelu)
        stated = source.preprocess
        mean, std = given or (stated.get('mean'), stated.get('std'))
        if mean is None or std is None:
            raise ValueError(
                f"'{pretrained or model}' has no mean and std of its images: "
                'set mean and std, such as open_clip.OPENAI_DATASET_MEAN and OPENAI_DATASET_STD '
                'for OpenAI, DFN and most LAION weights, or (0.5, 0.5, 0.5) twice for SigLIP'
            )
        built = _build(source, resolution)
        # CoCa and others are subclasses with another forward pass, and some
        # towers give no map
        plain = type(built) in (open_clip.CLIP, open_clip.CustomTextCLIP)
        if not plain or not hasattr(built.visual, 'forward_intermediates'):
            raise ValueError(
                f"'{model}' is a {type(built).__name__} over a "
                f'{type(built.visual).__name__}, whose features CLIPTeacher '
                'cannot read; choose a CLIP or SigLIP over a ViT'
            )
        size = built.visual.image_size
        # open_clip knows square images as one number
        pair = (size, size) if isinstance(size, int) else size
        super().__init__(mean, std, pair)
        self.name = source.name
        self.model = built if with_text else None
        self.visual = built.visual
        # open_clip, too, takes 'random' for bicubic
        if built.visual.preprocess_cfg['interpolation'] == 'bilinear':
            self.interpolation = 'bilinear'
        self.probe()

    def extract(self, images: Tensor, mask: Tensor | None) -> Features:
        """Run the image tower.

        Args:
            images: Normalised images, (B, 3, H, W).
            mask: Not used: padding is zero and takes part in attention.

        Returns:
            Image embedding (B, D) and the map of patch tokens (B, C, H, W).
        """
        out = self.visual.forward_intermediates(
            images, indices=1, normalize_intermediates=True, output_fmt='NCHW'
        )
        maps = tuple(out['image_intermediates'])
        return Features(out['image_features'], maps)

    @torch.no_grad()
    def to_text_space(self, m: Tensor) -> Tensor:
        """Project each patch token as the tower projects its pooled one.

        The map is before the layers that lead into the space of text
        embeddings. Each token is projected as if all tokens of an image were
        equal to it: by the tower's projection, or by its attention pooling
        (SigLIP; a ResNet, whose pooling's positions are left out).

        Args:
            m: The map that :meth:`extract` gives, or a student's of the
                same kind, (B, C, H, W).

        Returns:
            (B, D, H, W), D as in the summary.
        """
        # (B, C, H, W) -> (B, N, C)
        tokens = m.flatten(2).transpose(1, 2).contiguous()
        if isinstance(self.visual, TimmModel):
            trunk = self.visual.trunk
            # (B, N, C) -> (B * N, P + 1, C): each token is a whole image
            count = trunk.num_prefix_tokens + 1
            alike = tokens.flatten(0, 1)[:, None].expand(-1, count, -1)
            read = self.visual.head(trunk.forward_head(alike))
            read = read.unflatten(0, tokens.shape[:2])
        elif isinstance(self.visual, ModifiedResNet):
            # Attention over one value gives that value, whatever the query.
            pool = self.visual.attnpool
            read = pool.c_proj(pool.v_proj(tokens))
        else:
            read = tokens @ self.visual.proj
        return to_map(read, (m.shape[-2], m.shape[-1]))

    def tokenizer(self) -> Callable[[list[str]], Tensor]:
        """The tokenizer of the text tower.

        It turns texts into token ids, (B, context length).

        Raises:
            FileNotFoundError: If its files are not at hand.
        """
        try:
            with _no_remote_code():
                return open_clip.get_tokenizer(self.name)
        except (OSError, ValueError) as error:
            raise FileNotFoundError(
                f"The tokenizer of '{self.name}' cannot be read: put "
                'tokenizer.json and tokenizer_config.json beside its '
                'open_clip_config.json, and use local-dir:FOLDER as model.'
            ) from error


class _Source(NamedTuple):
    """What is known of a model before it is built.

    ``weights`` is None if the folder ``name`` has them; ``preprocess`` has
    what is known of the preprocessing of images.
    """

    name: str
    weights: Path | None
    quick_gelu: bool
    preprocess: Mapping[str, Any]


@contextmanager
def _no_remote_code() -> Iterator[None]:
    """Let transformers refuse a model's own code where it would ask."""
    # open_clip does not pass trust_remote_code, for which transformers asks
    # on stdin. With no time to wait for an answer it raises instead.
    seconds = dynamic_module_utils.TIME_OUT_REMOTE_CODE
    dynamic_module_utils.TIME_OUT_REMOTE_CODE = 0
    try:
        yield
    finally:
        dynamic_module_utils.TIME_OUT_REMOTE_CODE = seconds


def _build(source: _Source, resolution: tuple[int, int] | None) -> Any:
    """Both towers; every weight comes from the files."""
    try:
        with _no_remote_code():
            return open_clip.create_model(
                source.name,
                pretrained=str(source.weights) if source.weights else None,
                force_quick_gelu=source.quick_gelu,
                force_image_size=resolution,
                # a tag's weights are given as a file, which states none
                force_preprocess_cfg=dict(source.preprocess),
                require_pretrained=True,
            )
    except UnpicklingError:
        raise RuntimeError(refusal(source.weights or source.name)) from None
    # open_clip stumbles in many ways over a file of another model
    except Exception as error:
        text = ' '.join(str(error).split())[:300]
        raise RuntimeError(
            f"The weights of '{source.weights or source.name}' are broken or "
            f"do not fit '{source.name}': {text}"
        ) from error


def _find(model: str, pretrained: str | None, quick_gelu: bool | None) -> _Source:
    """Find the weights of a model and what they were trained with."""
    if model.startswith(('local-dir:', 'hf-hub:')):
        source = _find_folder(model, pretrained)
    else:
        source = _find_named(model, pretrained, quick_gelu)
    if source.quick_gelu and quick_gelu is False:
        raise ValueError(f"quick_gelu=False contradicts '{source.name}'")
    return source._replace(quick_gelu=source.quick_gelu or bool(quick_gelu))


def _find_folder(model: str, pretrained: str | None) -> _Source:
    """A folder that states what its weights were trained with."""
    if pretrained is not None:
        raise ValueError(
            f"'{model}' brings its own weights, so pretrained="
            f"'{pretrained}' would be ignored; remove one of them"
        )
    folder = fetch_folder(model.partition(':')[2], OPEN_CLIP)
    config = read_config(folder, OPEN_CLIP.config)
    if not isinstance(config.get('model_cfg'), dict):
        raise ValueError(f"'{folder}/{OPEN_CLIP.config}' has no model_cfg")
    # open_clip hands these to AutoTokenizer, whatever they hold
    if '"trust_remote_code"' in json.dumps(config):
        raise ValueError(
            f"'{folder}/{OPEN_CLIP.config}' sets trust_remote_code, which "
            'would run code of the hub; remove it.'
        )
    quick = bool(config['model_cfg'].get('quick_gelu', False))
    return _Source(f'local-dir:{folder}', None, quick, config.get('preprocess_cfg') or {})


def _find_named(model: str, pretrained: str | None, quick_gelu: bool | None) -> _Source:
    """A config of open_clip, with a tag for its weights or a file."""
    config = open_clip.get_model_config(model)
    if config is None:
        raise ValueError(f"open_clip has no model '{model}': see open_clip.list_models()")
    tags = open_clip.list_pretrained_tags_by_model(model)
    if pretrained is None:
        raise ValueError(
            f"'{model}' would have random weights: set pretrained to one of {tags} or to a file"
        )
    quick = bool(config.get('quick_gelu', False))
    if tag := get_pretrained_cfg(model, pretrained):
        # Either of the two may say so; a GELU config is switched to what a tag needs.
        trained = quick or bool(tag.get('quick_gelu', False))
        if quick_gelu not in (None, trained):
            raise ValueError(
                f"'{pretrained}' of '{model}' was trained with quick_gelu={trained}: use the "
                f"config '{model.replace('-quickgelu', '')}' and leave quick_gelu unset"
            )
        repo, _, name = tag['hf_hub'].rpartition('/')
        names = OPEN_CLIP.weights
        if name:  # safetensors are preferred to what the tag names
            names = (str(Path(name).with_suffix('.safetensors')), name)
        weights = fetch_file(repo, *dict.fromkeys(names))
        return _Source(model, weights, trained, tag)
    path = Path(pretrained).expanduser()
    if not path.is_file():
        raise ValueError(
            f"'{pretrained}' is neither a file nor a tag of '{model}', which are {tags}"
        )
    # torch would advise to run the code of a TorchScript file, such as OpenAI's own.
    if path.suffix != '.safetensors' and not is_legacy(path) and (fault := find_fault(path)):
        own = "; for OpenAI's own weights set pretrained='openai'" if 'openai' in tags else ''
        raise RuntimeError(f"'{path}' {fault}{own}.")
    # a file states nothing; towers of timm have an activation of their own
    native = 'timm_model_name' not in config['vision_cfg']
    if native and not quick and quick_gelu is None:
        raise ValueError(
            f"'{pretrained}' does not say its activation: set quick_gelu="
            'True for weights of OpenAI, DFN-2B or MetaCLIP, else False'
        )
    keys = ('interpolation', 'resize_mode')
    configs = [get_pretrained_cfg(model, tag) for tag in tags]
    modes = {tuple(config.get(key) for key in keys) for config in configs}
    common = dict(zip(keys, modes.pop(), strict=True)) if len(modes) == 1 else {}
    return _Source(model, path, quick, common)
