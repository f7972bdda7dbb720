"""timm's models, with weights from files that fill them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import timm

from .hub import fetch_file
from .state_dict import load_state

_LOADING = ('checkpoint_path', 'pretrained')


def check_options(options: dict[str, Any]) -> None:
    """Refuse arguments of ``timm.create_model`` that load weights.

    Args:
        options: The arguments.

    Raises:
        ValueError: If there is one; it would get past our reader.
    """
    if loading := [key for key in options if key.startswith(_LOADING)]:
        raise ValueError(f'options {loading} load weights; use checkpoint instead')


def family_of(name: str) -> str:
    """The architecture in the name of a model, without its tag.

    Args:
        name: The name, such as 'vit_base_patch16_224.mae'.

    Raises:
        ValueError: If timm has no such model.
    """
    family = name.partition('.')[0]
    if not timm.is_model(family):
        raise ValueError(f"timm has no model '{name}'; see timm.list_models()")
    return family


def load_timm(name: str, checkpoint: str | Path | None, options: dict[str, Any]) -> Any:
    """Build a model of timm and fill it, its classifier too.

    Args:
        name: Its name, with a tag for hub weights, such as
            'vit_base_patch14_reg4_dinov2.lvd142m'.
        checkpoint: Its weights in a local file; None takes the tag's from
            the hub.
        options: More arguments of ``timm.create_model``.

    Returns:
        The model in train mode.

    Raises:
        FileNotFoundError: If the weights cannot be had.
        RuntimeError: If they don't fill the model.
        ValueError: If the model is unknown, has no weights, or another
            activation than they were trained with.
    """
    check_options(options)
    # Only in its trained form, classifier and all, does timm load strictly
    family = family_of(name)
    quick = name.replace('_clip_', '_clip_quickgelu_')
    if quick != name and quick in timm.list_pretrained():
        raise ValueError(
            f"timm's '{name}' would compute GELU with weights of QuickGELU; name '{quick}'."
        )
    if checkpoint is None:
        known = timm.list_pretrained(f'{family}.*')
        config = timm.get_pretrained_cfg(name) if name in known else None
        if config is None or not config.hf_hub_id:
            raise ValueError(
                f"timm's '{name}' would have random weights: name one of {known}, or set checkpoint"
            )
        files: tuple[str, ...] = ('model.safetensors', 'pytorch_model.bin')
        if config.hf_hub_filename:
            files = (config.hf_hub_filename,)
        checkpoint = fetch_file(config.hf_hub_id, *files)
    # 'source' keeps timm from the hub, 'custom_load' from its own reader
    given: dict[str, Any] = dict(
        state_dict=load_state(checkpoint), custom_load=False, source='timm'
    )
    if 'num_classes' in options:
        # timm would drop the classifier of a file with another number
        given['num_classes'] = options['num_classes']
    try:
        model: Any = timm.create_model(
            name, pretrained=True, pretrained_cfg_overlay=given, **options
        )
    except (RuntimeError, KeyError, TypeError) as error:
        text = ' '.join(str(error).split())[:300]
        raise RuntimeError(f"'{checkpoint}' does not fit timm's '{name}': {text}") from error
    del model.pretrained_cfg['state_dict']  # a second copy of the weights
    return model
