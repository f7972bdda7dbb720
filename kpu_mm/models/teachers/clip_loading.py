"""Build open_clip models with weights that fit them, or not at all.

open_clip only logs a warning, or says nothing, when it leaves a model at
random, activates it with another GELU than it was trained with, or forgets
the mean and deviation of its images.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import open_clip
from open_clip.pretrained import get_pretrained_cfg
from torch import nn
from transformers import dynamic_module_utils

from kpu_mm.weights.hub import OPEN_CLIP, fetch_file, fetch_folder
from kpu_mm.weights.pretrained import read_config

_SCHEMES = ('local-dir:', 'hf-hub:')


@contextmanager
def no_remote_code() -> Iterator[None]:
    """Let transformers refuse a model's own code where it would ask.

    open_clip does not pass ``trust_remote_code``, for which transformers
    asks on stdin. With no time to wait for an answer it raises instead.
    """
    seconds = dynamic_module_utils.TIME_OUT_REMOTE_CODE
    dynamic_module_utils.TIME_OUT_REMOTE_CODE = 0
    try:
        yield
    finally:
        dynamic_module_utils.TIME_OUT_REMOTE_CODE = seconds


class CLIPSource(NamedTuple):
    """What is known of a model before it is built.

    Args:
        name: Name for open_clip; `local-dir:` for a folder.
        weights: File with the weights; None if the folder has them.
        quick_gelu: Whether the model was trained with QuickGELU.
        mean: Mean of its images in units of [0, 1].
        std: Their standard deviation.
    """

    name: str
    weights: Path | None
    quick_gelu: bool
    mean: Sequence[float]
    std: Sequence[float]

    def build(self, resolution: tuple[int, int] | None = None) -> nn.Module:
        """Build the model; every weight comes from the files.

        Args:
            resolution: Interpolate its positions to this (H, W); None keeps
                its own size. Defaults to None.

        Returns:
            The model with both towers.

        Raises:
            RuntimeError: If the weights are broken or don't fit.
        """
        try:
            with no_remote_code():
                return open_clip.create_model(
                    self.name,
                    pretrained=str(self.weights) if self.weights else None,
                    force_quick_gelu=self.quick_gelu,
                    force_image_size=resolution,
                    require_pretrained=True,
                )
        # open_clip stumbles in many ways over a file of another model
        except Exception as error:
            text = ' '.join(str(error).split())[:300]
            raise RuntimeError(
                f"The weights of '{self.weights or self.name}' are broken or "
                f"do not fit '{self.name}': {text}"
            ) from error


def find_clip(
    model: str,
    pretrained: str | None = None,
    quick_gelu: bool | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> CLIPSource:
    """Find the weights of a model and what they were trained with.

    Args:
        model: Name of an open_clip config, `local-dir:FOLDER` or
            `hf-hub:NAME`.
        pretrained: Tag of open_clip or a file; None for a folder or hub
            model. Defaults to None.
        quick_gelu: The activation; None takes it from the tag, folder or
            config. Defaults to None.
        mean: Mean in units of [0, 1]; None takes it from the tag or folder.
            Defaults to None.
        std: Standard deviation, as ``mean``. Defaults to None.

    Returns:
        The source, ready to build.

    Raises:
        ValueError: If something is unknown or contradicts.
    """
    if (mean is None) != (std is None):
        raise ValueError('give both mean and std, or neither')
    given = None if mean is None or std is None else (mean, std)
    if model.startswith(_SCHEMES):
        return _from_folder(model, pretrained, quick_gelu, given)
    config = open_clip.get_model_config(model)
    if config is None:
        raise ValueError(
            f"open_clip has no model '{model}'; see open_clip.list_models(), "
            'or pass local-dir:FOLDER or hf-hub:NAME'
        )
    if pretrained is None:
        raise ValueError(
            f"'{model}' would have random weights: set pretrained to one of "
            f'{open_clip.list_pretrained_tags_by_model(model)} or to a file'
        )
    tag = get_pretrained_cfg(model, pretrained)
    quick = bool(config.get('quick_gelu', False))
    if not tag:
        native = 'timm_model_name' not in config['vision_cfg']
        return _from_file(model, pretrained, quick, quick_gelu, native, given)
    trained = bool(tag.get('quick_gelu', False))
    # a GELU config is switched to what a tag needs; not the other way
    if (quick and not trained) or quick_gelu not in (None, trained):
        raise ValueError(
            f"'{pretrained}' of '{model}' was trained with quick_gelu="
            f"{trained}: use the config '{model.replace('-quickgelu', '')}' "
            'and leave quick_gelu unset'
        )
    repo, _, name = tag['hf_hub'].rpartition('/')
    weights = fetch_file(repo, *_file_names(name))
    mean, std = given or (tag['mean'], tag['std'])
    return CLIPSource(model, weights, trained, mean, std)


def _from_folder(
    model: str,
    pretrained: str | None,
    quick_gelu: bool | None,
    given: tuple[Sequence[float], Sequence[float]] | None,
) -> CLIPSource:
    if pretrained is not None:
        raise ValueError(
            f"'{model}' brings its own weights, so pretrained="
            f"'{pretrained}' would be ignored; remove one of them"
        )
    folder = fetch_folder(model.partition(':')[2], OPEN_CLIP)
    config = read_config(folder, OPEN_CLIP.config)
    if not isinstance(config.get('model_cfg'), dict):
        raise ValueError(f"'{folder}/{OPEN_CLIP.config}' has no model_cfg")
    # open_clip hands these to AutoTokenizer, whatever they say
    if '"trust_remote_code"' in json.dumps(config):
        raise ValueError(
            f"'{folder}/{OPEN_CLIP.config}' sets trust_remote_code, which "
            'would run code of the hub; remove it.'
        )
    quick = bool(config['model_cfg'].get('quick_gelu', False))
    if quick and quick_gelu is False:
        raise ValueError(f"quick_gelu=False contradicts '{folder}'")
    images = config.get('preprocess_cfg', {})
    if given is None and not {'mean', 'std'} <= images.keys():
        raise ValueError(
            f"'{folder}/{OPEN_CLIP.config}' has no mean and std in its "
            'preprocess_cfg: add them, or pass mean and std'
        )
    mean, std = given or (images['mean'], images['std'])
    name = f'local-dir:{folder}'
    return CLIPSource(name, None, quick or bool(quick_gelu), mean, std)


def _from_file(
    model: str,
    pretrained: str,
    quick: bool,
    quick_gelu: bool | None,
    native: bool,
    given: tuple[Sequence[float], Sequence[float]] | None,
) -> CLIPSource:
    path = Path(pretrained).expanduser()
    if not path.is_file():
        raise ValueError(
            f"'{pretrained}' is neither a file nor a tag of '{model}', which "
            f'are {open_clip.list_pretrained_tags_by_model(model)}'
        )
    if quick and quick_gelu is False:
        raise ValueError(f"quick_gelu=False contradicts the config '{model}'")
    if native and not quick and quick_gelu is None:
        raise ValueError(
            f"'{pretrained}' does not say its activation: set quick_gelu="
            'True for weights of OpenAI, DFN-2B or MetaCLIP, else False'
        )
    if given is None:
        raise ValueError(
            f"'{pretrained}' does not say how images are normalised: set "
            'mean and std, such as (0.48145466, 0.4578275, 0.40821073) and '
            '(0.26862954, 0.26130258, 0.27577711) for OpenAI, DFN and most '
            'LAION weights, or (0.5, 0.5, 0.5) twice for SigLIP'
        )
    return CLIPSource(model, path, quick or bool(quick_gelu), *given)


def _file_names(name: str) -> tuple[str, ...]:
    """Safetensors first, then what the tag names."""
    if not name:
        return OPEN_CLIP.weights
    safe = str(Path(name).with_suffix('.safetensors'))
    return (safe, name) if safe != name else (name,)
