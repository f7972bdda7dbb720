"""Local folders and the Hugging Face hub behind one ``source`` string."""

from __future__ import annotations

import json
import os
import re
import socket
import urllib.request
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from huggingface_hub import constants, hf_hub_download, snapshot_download
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

# options of transformers' from_pretrained that snapshot_download takes, too
HUB_OPTIONS = ('cache_dir', 'force_download', 'local_files_only', 'revision', 'token')
_EXPORTED = ('*.json', '*.safetensors', 'sentinel/*.json', 'sentinel/*.safetensors')
_HUB_NAME = re.compile(r'[\w.-]+(/[\w.-]+)?')


class Layout(NamedTuple):
    """The files of a saved model.

    Args:
        config: Its configuration.
        weights: Patterns of its weights, the preferred one first.
    """

    config: str = 'config.json'
    weights: tuple[str, ...] = ('model*.safetensors', 'pytorch_model*.bin')

    def fits(self, folder: Path) -> bool:
        """Whether a folder holds all that is needed.

        Args:
            folder: The folder.

        Returns:
            True if it has a configuration and weights, with all of their parts.

        Raises:
            RuntimeError: If the list of the parts is corrupt.
        """
        # a broken link is a cached file that was never fetched
        files = [folder / pattern.replace('*', '') for pattern in self.weights]
        return (folder / self.config).is_file() and any(map(_is_whole, files))

    @property
    def names(self) -> str:
        """The files in words, for messages."""
        return f'{self.config} and {self.weights[0].replace("*", "")}'


def _is_whole(weights: Path) -> bool:
    """Whether weights are there, in one file or in all the parts that their index lists."""
    if weights.is_file():
        return True
    index = weights.with_name(f'{weights.name}.index.json')
    if not index.is_file():
        return False
    try:
        parts = json.loads(index.read_text(encoding='utf-8'))['weight_map'].values()
    except (KeyError, ValueError) as error:
        raise RuntimeError(f"'{index}' is corrupt; copy or download it again.") from error
    return all((weights.parent / part).is_file() for part in parts)


TRANSFORMERS = Layout()
OPEN_CLIP = Layout(
    'open_clip_config.json', ('open_clip_model.safetensors', 'open_clip_pytorch_model.bin')
)


def fetch_folder(source: str | Path, layout: Layout = TRANSFORMERS) -> Path:
    """The local folder that holds a model.

    A hub model is taken from the cache when it is there whole, without
    asking the hub for a newer one.

    Args:
        source: A local folder or the name of a model on the hub.
        layout: The files that make a model. Defaults to those of
            transformers.

    Returns:
        A folder with a configuration and weights.

    Raises:
        FileNotFoundError: If nothing is found, with what to put where.
    """
    folder = Path(source).expanduser()
    if folder.is_dir():
        if not layout.fits(folder):
            raise FileNotFoundError(
                f"The folder '{folder}' is not a saved model: it needs {layout.names}."
            )
        return folder
    if not _HUB_NAME.fullmatch(str(source)):
        raise FileNotFoundError(
            f"The folder '{source}' does not exist; put {layout.names} there or correct `source`."
        )
    cached = _snapshot(str(source), layout, local=True)
    if cached is not None:
        return cached
    require_hub(
        f"the model '{source}'",
        f'put its {layout.names}, and its preprocessor_config.json if it has '
        'one, into a folder and pass the path of the folder as `source`',
    )
    fetched = _snapshot(str(source), layout, local=False)
    if fetched is None:
        raise FileNotFoundError(
            f"The hub's '{source}' has no {layout.names}; choose another model."
        )
    return fetched


def fetch_exported(source: str, subfolder: str = '.', **options: Any) -> Path:
    """The local folder of an exported student.

    Args:
        source: A local folder or the name of a model on the hub.
        subfolder: Where the student is in it. Defaults to '.'.
        **options: Those of ``HUB_OPTIONS``, for ``snapshot_download``.

    Returns:
        The folder of the student.

    Raises:
        FileNotFoundError: If it is neither here nor to be had from the hub.
    """
    folder = Path(source).expanduser()
    if not folder.is_dir():
        # neither graphs nor pickles
        patterns = [str(PurePosixPath(subfolder, file)) for file in _EXPORTED]
        try:
            folder = Path(snapshot_download(source, allow_patterns=patterns, **options))
        except (OSError, ValueError) as error:
            raise FileNotFoundError(_hub_error(source, error)) from error
    return folder / subfolder


def fetch_file(repo: str, *names: str) -> Path:
    """One file of a hub model, from the cache or the hub.

    Args:
        repo: Name of the model on the hub.
        *names: Names the file may have, the preferred one first.

    Returns:
        The local path.

    Raises:
        FileNotFoundError: If it is neither cached nor reachable.
    """
    for name in names:
        with suppress(OSError):
            return Path(hf_hub_download(repo, name, local_files_only=True))
    require_hub(
        f"the file '{names[0]}' of '{repo}'",
        'get it on a connected machine and pass its local path',
    )
    missing: Exception | None = None
    for name in names:
        try:
            return Path(hf_hub_download(repo, name))
        except (OSError, ValueError) as error:
            absent = isinstance(error, EntryNotFoundError)
            if not absent or isinstance(error, LocalEntryNotFoundError):
                raise FileNotFoundError(_hub_error(repo, error)) from error
            missing = error
    raise FileNotFoundError(f"The hub's '{repo}' has none of the files {list(names)}.") from missing


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


def _snapshot(repo: str, layout: Layout, local: bool) -> Path | None:
    """A snapshot of a repository with all that is needed, else None."""
    # the pickles of old models only if there is no other file
    for weights in layout.weights:
        try:
            folder = snapshot_download(
                repo,
                allow_patterns=['*.json', '*.txt', '*.model', weights],
                ignore_patterns=['*/*'],
                local_files_only=local,
            )
        except (OSError, ValueError) as error:
            if local:
                return None
            raise FileNotFoundError(_hub_error(repo, error)) from error
        if layout.fits(Path(folder)):
            return Path(folder)
    return None


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
