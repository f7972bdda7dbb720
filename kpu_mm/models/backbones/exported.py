"""Load what ``tools/export.py`` wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kpu_mm.registry import find_model
from kpu_mm.weights.state_dict import load_state, select_prefix

from .exported_config import HINT, check_files, read_description
from .sentinel_backbone import SentinelBackbone


def load_exported(folder: str | Path, **overrides: Any) -> SentinelBackbone:
    """Load an exported student.

    Args:
        folder: The folder that ``tools/export.py`` wrote.
        **overrides: Arguments of the backbone that differ from the
            student's own, such as ``frozen`` or ``out_indices``.

    Returns:
        The backbone in eval mode, in float32 on the CPU.

    Raises:
        FileNotFoundError: If a file of the folder is missing.
        RuntimeError: If a file is broken, or weights are missing.
        TypeError: If an override is no argument of the backbone.
    """
    folder = Path(folder).expanduser()
    described: Any = read_description(folder)
    # without it, the name might be taken for one of the hub's
    if not (folder / 'sentinel').is_dir():
        raise FileNotFoundError(f"'{folder}' has no folder 'sentinel'; add it.")
    check_files(folder, described)
    arguments = {**described['backbone'], **overrides}
    kind: Any = find_model(arguments.pop('type'), SentinelBackbone)
    arguments['sentinel'] = str(folder / 'sentinel')
    try:
        backbone: SentinelBackbone = kind(**arguments)
    except (OSError, RuntimeError):  # these name their file
        raise
    except Exception as error:
        if overrides:
            raise
        raise RuntimeError(
            f"'{folder / 'config.json'}': {kind.__name__} cannot be built "
            f'from backbone ({type(error).__name__}: {error}); {HINT}.'
        ) from error
    own = dict(strides=list(backbone.strides), channels=backbone.embed_dims)
    for key, value in own.items():
        if described[key] != value:
            raise RuntimeError(
                f"'{folder / 'config.json'}': {key} must be {value}, but is "
                f'{described[key]}; {HINT}.'
            )
    load_strictly(backbone, folder / 'model.safetensors')
    return backbone.eval()


def load_strictly(backbone: SentinelBackbone, path: str | Path, prefix: str = '') -> None:
    """Fill all of a student from a file.

    A frozen sentinel need not be in the file; its checksum must agree.

    Args:
        backbone: The backbone.
        path: A checkpoint or a file of weights.
        prefix: Which of the names in the file are the backbone's. Defaults
            to '', all.

    Raises:
        FileNotFoundError: If there is no such file.
        RuntimeError: If it is broken, or does not fit the backbone.
    """
    external = backbone.external_prefixes
    state = {
        name: value
        for name, value in select_prefix(load_state(path), prefix).items()
        if not name.startswith(external)
    }
    if not state:
        raise RuntimeError(
            f"'{path}' has no weights named '{prefix}...'; pass a checkpoint "
            'of the run that the config describes.'
        )
    # not state_dict(), which a frozen sentinel is absent from
    own = dict([*backbone.named_parameters(), *backbone.named_buffers()])
    for name, value in state.items():
        if name in own and own[name].shape != value.shape:
            raise RuntimeError(
                f"'{path}' belongs to another config: {prefix}{name} is "
                f'{tuple(value.shape)} there, but {tuple(own[name].shape)} '
                'here; use the config of the run.'
            )
    # compares the checksum of a frozen sentinel, too
    missing, unexpected = backbone.load_state_dict(state, strict=False)
    missing = [name for name in missing if not name.startswith(external)]
    if missing or unexpected:
        raise RuntimeError(
            f"'{path}' belongs to another config: "
            f'{len(missing)} keys are missing, first {missing[:3]}, and {len(unexpected)} are '
            f'unexpected, first {unexpected[:3]}; use the config of the run.'
        )
