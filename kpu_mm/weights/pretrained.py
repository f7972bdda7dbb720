"""Weights from files, with nothing left to chance.

The libraries' own loaders initialise missing weights at random, read a model
of another kind, or run the code inside a file. These don't.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from math import isclose
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from safetensors import SafetensorError
from torch import nn

from .checkpoint_file import refusal
from .hub import fetch_folder

# what differs between versions of transformers and is computed anyway
_COMPUTED = 'relative_position_index'
# of bytes; a configuration has thousands
_LARGEST_JSON = 1 << 24


def load_transformers(
    cls: Any, source: str | Path, may_miss: Sequence[str] = (), **kwargs: Any
) -> nn.Module:
    """Load a transformers model; every weight comes from the files.

    Args:
        cls: A model class of transformers, auto classes included.
        source: A local folder with config.json and model.safetensors, or
            the name of a model on the hub.
        may_miss: Parts of the names of weights that the files may lack,
            because the caller makes no use of them. Defaults to ().
        **kwargs: For ``cls.from_pretrained``, except ``trust_remote_code``.

    Returns:
        The model in float32, eval mode, without gradients.

    Raises:
        FileNotFoundError: If there is no such folder, or no such model in
            the cache while the hub is out of reach.
        RuntimeError: If the files are broken, hold more than weights, or lack
            weights of the model.
        ValueError: If the folder holds a model of another kind.
    """
    if 'trust_remote_code' in kwargs:
        raise ValueError(
            'trust_remote_code would run code of the hub; install a version '
            'of transformers that knows the model instead'
        )
    folder = fetch_folder(source)
    _check_kind(cls, folder)
    _check_plain(folder)
    try:
        model, info = cls.from_pretrained(
            str(folder),
            local_files_only=True,
            trust_remote_code=False,  # None would ask on stdin
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # reported below, all at once
            **kwargs,
        )
    except UnpicklingError:
        raise RuntimeError(refusal(folder)) from None
    except (SafetensorError, EOFError, OSError) as error:
        raise RuntimeError(
            f"The weights in '{folder}' are truncated or corrupt "
            f'({_reason(error)}); copy or download them again.'
        ) from error
    # transformers stumbles in many ways over values of a wrong kind
    except Exception as error:
        raise RuntimeError(
            f"The config.json in '{folder}' describes no {cls.__name__} that "
            f'transformers can build ({type(error).__name__}: '
            f'{_reason(error)}); copy or download it again.'
        ) from error
    bad = {
        kind: kept
        for kind in ('missing_keys', 'mismatched_keys', 'error_msgs')
        if (kept := _matter(info.get(kind) or (), may_miss))
    }
    if bad:
        raise RuntimeError(
            f"The weights in '{folder}' do not fill {cls.__name__}: "
            + '; '.join(f'{kind} {_shorten(v)}' for kind, v in bad.items())
            + '. Pass the folder of the complete model.'
        )
    return model.float().eval().requires_grad_(False)


def read_config(folder: Path, name: str = 'config.json') -> dict[str, Any]:
    """Read a JSON file of a model's folder.

    Args:
        folder: The folder.
        name: The file. Defaults to 'config.json'.

    Returns:
        Its content.

    Raises:
        FileNotFoundError: If the file is missing.
        RuntimeError: If it is not a JSON object.
    """
    path = folder / name
    if not path.is_file():
        raise FileNotFoundError(f"'{folder}' has no {name}; add the file.")
    try:
        if path.stat().st_size > _LARGEST_JSON:
            raise ValueError(f'it has more than {_LARGEST_JSON} bytes')
        content = json.loads(path.read_text(encoding='utf-8'))
    except (RecursionError, ValueError) as error:
        raise RuntimeError(f"'{path}' is not valid JSON: {error}.") from error
    if not isinstance(content, dict):
        raise RuntimeError(f"'{path}' is not a JSON object.")
    return content


def read_normalization(
    folder: Path,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    default: tuple[Sequence[float], Sequence[float]] | None = None,
) -> tuple[list[float], list[float]]:
    """Mean and deviation in units of [0, 1], never a guess.

    Args:
        folder: Folder of a transformers model; its preprocessor_config.json
            is read unless both values are given.
        mean: Takes precedence over the file. Defaults to None.
        std: Takes precedence over the file. Defaults to None.
        default: Both values where neither the file nor the caller says
            them; None for none. Defaults to None.

    Returns:
        Mean and standard deviation of the RGB channels.

    Raises:
        ValueError: If only one value is given, or nothing says both.
    """
    if given := stated_normalization(mean, std):
        return list(given[0]), list(given[1])
    config: dict[str, Any] = {}
    # transformers 5 saves one file for image processor and tokenizer
    for name in ('preprocessor_config.json', 'processor_config.json'):
        if (folder / name).is_file():
            config = read_config(folder, name)
            config = config.get('image_processor', config)
            break
    if config.get('do_normalize', True) is False:
        config = dict(config, image_mean=[0.0] * 3, image_std=[1.0] * 3)
    if 'image_mean' not in config or 'image_std' not in config:
        if default is not None:
            return list(default[0]), list(default[1])
        raise ValueError(
            f"'{folder}' does not say how images are normalised: add its "
            'preprocessor_config.json with image_mean and image_std, or pass '
            'mean and std in units of [0, 1]'
        )
    # the processor computes (x * factor - mean) / std
    factor = config.get('rescale_factor', 1 / 255)
    if config.get('do_rescale', True) is False:
        factor = 1.0
    scale = 1.0 if isclose(factor, 1 / 255) else 1 / (255 * factor)
    return (
        [value * scale for value in config['image_mean']],
        [value * scale for value in config['image_std']],
    )


def stated_normalization(
    mean: Sequence[float] | None, std: Sequence[float] | None
) -> tuple[Sequence[float], Sequence[float]] | None:
    """The mean and deviation that a config gives, if it gives them.

    Args:
        mean: Mean of each RGB channel, or None.
        std: Standard deviation, or None.

    Returns:
        Both, or None.

    Raises:
        ValueError: If only one of them is given.
    """
    if (mean is None) != (std is None):
        raise ValueError('give both mean and std, or neither')
    return None if mean is None or std is None else (mean, std)


def _check_kind(cls: Any, folder: Path) -> None:
    """Refuse the files of another architecture, often partly loadable."""
    wanted = getattr(getattr(cls, 'config_class', None), 'model_type', None)
    config = read_config(folder)
    found, vision = config.get('model_type'), config.get('vision_config')
    # transformers takes the vision tower out of a model with a text tower
    tower = isinstance(vision, dict) and vision.get('model_type') == wanted
    if wanted and found != wanted and not tower:
        raise ValueError(
            f"'{folder}' holds a model of type '{found}', but "
            f"{cls.__name__} needs '{wanted}'; pass another source."
        )


def _check_plain(folder: Path) -> None:
    """Refuse what makes transformers load more than the model's weights.

    Attention kernels, and those of some quantised formats, are compiled code
    that comes from the hub; an adapter names another model to load.
    """
    if (folder / 'adapter_config.json').exists():
        raise RuntimeError(
            f"'{folder}' holds an adapter of another model, not a model; "
            'merge them and save the result.'
        )
    check_plain(read_config(folder), f"The config.json in '{folder}'")


def check_plain(config: Mapping[str, Any], where: str) -> None:
    """Refuse the configuration of a model that brings code of the hub.

    Args:
        config: Its content.
        where: What it is, to begin the message with.

    Raises:
        RuntimeError: If it names kernels or a quantised format.
    """
    waiting: list[Any] = [config]
    while waiting:
        for key, value in waiting.pop().items():
            kernel = key.endswith('attn_implementation') and '/' in str(value)
            if kernel or (key == 'quantization_config' and value is not None):
                raise RuntimeError(
                    f'{where} has {key}, which may run code of the hub; save the model without it.'
                )
            if isinstance(value, dict):
                waiting.append(value)


def _matter(keys: Sequence[Any], may_miss: Sequence[str]) -> list[str]:
    unimportant = (_COMPUTED, *may_miss)
    return [text for text in map(str, keys) if not any(part in text for part in unimportant)]


def _shorten(keys: Sequence[str], limit: int = 5) -> str:
    rest = len(keys) - limit
    text = ', '.join(keys[:limit])
    return f'{text} and {rest} more' if rest > 0 else text


def _reason(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
