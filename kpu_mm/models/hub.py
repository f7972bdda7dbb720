"""Local folders and the Hugging Face hub behind one ``source`` string."""

from __future__ import annotations

import os
import re
import socket
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

from huggingface_hub import constants, hf_hub_download, snapshot_download

_HUB_NAME = re.compile(r'[\w.-]+(/[\w.-]+)?')
_TEXT_FILES = ['*.json', '*.txt', '*.model']


def fetch_folder(source: str | Path) -> Path:
    """The local folder that holds a model.

    A hub model is taken from the cache when it is there whole, without
    asking the hub for a newer one.

    Args:
        source: A local folder or the name of a model on the hub.

    Returns:
        A folder with a configuration (``*config.json``) and weights.

    Raises:
        FileNotFoundError: If nothing is found, with what to put where.
    """
    folder = Path(source).expanduser()
    if folder.is_dir():
        if not _is_whole(folder):
            raise FileNotFoundError(
                f"The folder '{folder}' is not a saved model: it needs "
                'config.json and model.safetensors (for open_clip: '
                'open_clip_config.json and open_clip_model.safetensors).'
            )
        return folder
    if not _HUB_NAME.fullmatch(str(source)):
        raise FileNotFoundError(
            f"The folder '{source}' does not exist; put config.json and "
            'model.safetensors there or correct `source`.'
        )
    cached = _snapshot(str(source), local=True)
    if cached is not None and _is_whole(cached):
        return cached
    require_hub(
        f"the model '{source}'",
        'put its config.json and model.safetensors into a folder and pass '
        'the path of the folder as `source`',
    )
    fetched = _snapshot(str(source), local=False)
    if fetched is None or not _is_whole(fetched):
        raise FileNotFoundError(
            f"The hub's '{source}' holds no config.json with safetensors or "
            'pytorch_model.bin weights; choose another model.'
        )
    return fetched


def fetch_file(repo: str, name: str) -> Path:
    """One file of a hub model, from the cache or the hub.

    Args:
        repo: Name of the model on the hub.
        name: Name of the file in it.

    Returns:
        The local path.

    Raises:
        FileNotFoundError: If it is neither cached nor reachable.
    """
    try:
        return Path(hf_hub_download(repo, name, local_files_only=True))
    except OSError:
        require_hub(
            f"the file '{name}' of '{repo}'",
            f"get '{name}' on a connected machine and pass its local path",
        )
    try:
        return Path(hf_hub_download(repo, name))
    except OSError as error:
        raise FileNotFoundError(_hub_error(repo, error)) from error


def require_hub(what: str, remedy: str) -> None:
    """Raise at once, instead of minutes of retries, if the hub is away.

    Args:
        what: What is wanted from the hub.
        remedy: How to do without the hub, an imperative clause.

    Raises:
        FileNotFoundError: If this process is offline or the hub does not
            answer.
    """
    if _is_offline():
        reason = 'HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE is set'
        remedy += ', or unset the variable to download it'
    elif not _answers(constants.ENDPOINT):
        reason = f'{constants.ENDPOINT} cannot be reached'
    else:
        return
    raise FileNotFoundError(
        f'Cannot get {what}: it is not in the cache '
        f"'{constants.HF_HUB_CACHE}' and {reason}; {remedy}."
    )


def _is_whole(folder: Path) -> bool:
    weights = [*folder.glob('*.safetensors'), *folder.glob('*pytorch_model*')]
    # a broken link is a cached file that was never fetched
    return any(folder.glob('*config.json')) and any(
        file.is_file() and file.suffix != '.json' for file in weights
    )


def _snapshot(repo: str, local: bool) -> Path | None:
    """The snapshot of a repository; None if a local one is not there."""
    folder = None
    # safetensors first: the pickles of old models only if there is no other
    for weights in ('*.safetensors', 'pytorch_model*'):
        try:
            folder = Path(
                snapshot_download(
                    repo,
                    allow_patterns=[*_TEXT_FILES, weights],
                    ignore_patterns=['*/*'],
                    local_files_only=local,
                )
            )
        except (OSError, ValueError) as error:
            if local:
                return None
            raise FileNotFoundError(_hub_error(repo, error)) from error
        if _is_whole(folder):
            break
    return folder


def _hub_error(repo: str, error: Exception) -> str:
    reason = next(iter(str(error).splitlines()), type(error).__name__)
    return (
        f"Cannot download '{repo}' from {constants.ENDPOINT}: {reason} "
        'Check the name, accept its licence on the hub and log in with '
        '`hf auth login` if it asks for one, or pass a local path.'
    )


def _is_offline() -> bool:
    # the library reads the variables only once, when it is imported
    truthy = {'1', 'ON', 'YES', 'TRUE'}
    return bool(constants.HF_HUB_OFFLINE) or any(
        os.environ.get(name, '').upper() in truthy
        for name in ('HF_HUB_OFFLINE', 'TRANSFORMERS_OFFLINE')
    )


def _answers(url: str, timeout: float = 3.0) -> bool:
    """Whether the host of an address, or the proxy to it, accepts calls."""
    parts = urlsplit(url)
    proxy = urllib.request.getproxies().get(parts.scheme)
    if proxy and not urllib.request.proxy_bypass(parts.hostname or ''):
        parts = urlsplit(proxy if '://' in proxy else f'http://{proxy}')
    port = parts.port or (443 if parts.scheme == 'https' else 80)
    try:
        with socket.create_connection((parts.hostname, port), timeout):
            return True
    except OSError:
        return False
