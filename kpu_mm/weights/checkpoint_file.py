"""Checkpoint files as data: nothing in one is executed, damage is found.

``torch.load(weights_only=True)`` builds tensors, containers and what a list
of safe globals names. MMEngine's list contains ``builtins.getattr``, from
which a pickle reaches any module, so kpu_mm has its own list and gives it to
MMEngine as well.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from mmengine.optim.scheduler.param_scheduler import OneCycleParamScheduler
from safetensors.torch import load_file

# the functions that these classes of MMEngine's pickle by name
_FUNCTIONS: dict[type, tuple[str, ...]] = {
    HistoryBuffer: ('current', 'max', 'mean', 'min'),
    OneCycleParamScheduler: ('_annealing_cos', '_annealing_linear'),
}
# Each torch file begins with a pickled magic number before PyTorch 1.6, which
# brought the zip format (torch.serialization.MAGIC_NUMBER).
_LEGACY = b'\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.'
# how a zip file starts
_ZIP = b'PK\x03\x04'
# What pickles of numpy arrays and scalars call. numpy 2 moved the module; old
# files name the old place.
NUMPY_BUILDERS: dict[str, Any] = {
    f'numpy.{core}.multiarray.{name}': value.__reduce__()[0]
    for core in ('core', '_core')
    for name, value in (('_reconstruct', np.empty(0)), ('scalar', np.float32(0)))
}


def _function(owner: Any, name: str) -> Any:
    """Stand in for ``getattr`` in pickles of MMEngine.

    Args:
        owner: HistoryBuffer or OneCycleParamScheduler, nothing else.
        name: One of its functions in ``_FUNCTIONS``.

    Raises:
        UnpicklingError: If the pickle asks for anything else.
    """
    if isinstance(owner, type) and name in _FUNCTIONS.get(owner, ()):
        return getattr(owner, name)
    raise UnpicklingError(f'getattr({owner!r}, {name!r}) is not allowed')


def safe_globals() -> list[Any]:
    """What a checkpoint may name besides tensors and containers.

    Checkpoints of MMEngine's own runner hold numpy arrays, scalars, history
    buffers and functions of OneCycleLR. Those of kpu_mm's runners need nothing of this list.

    Returns:
        Objects, or pairs of an object and its name in the file, as
        ``torch.serialization.safe_globals`` takes them.
    """
    kinds = {type(np.dtype(code)) for code in np.typecodes['AllInteger']}
    kinds |= {type(np.dtype(code)) for code in np.typecodes['Float'] + '?'}
    # in a fixed order, which sets do not have
    return [
        np.ndarray,
        np.dtype,
        *sorted(kinds, key=lambda kind: kind.__name__),
        *((value, name) for name, value in NUMPY_BUILDERS.items()),
        *_FUNCTIONS,
        (_function, 'builtins.getattr'),
    ]


def refusal(path: str | Path) -> str:
    """The sentence for a file that holds more than weights.

    torch's own message recommends ``weights_only=False``, which runs the code
    in the file; so this one is raised in its place, and not from it.

    Args:
        path: The file, or its address.
    """
    return (
        f"'{path}' is refused: it is corrupt, or holds Python objects besides weights, which "
        'could run code; save its state_dict alone, best with safetensors.'
    )


def guard_loading() -> None:
    """Have every checkpoint in this process read as data.

    Called when MMEngine's loaders are imported, see
    :mod:`kpu_mm.weights`. Its loader of local files becomes
    :func:`read_checkpoint`, which serves ``load_from``, ``resume`` and
    ``init_cfg`` of all toolboxes; its loaders of addresses get kpu_mm's list
    and its sentence.
    """
    # The import of these loaders is what calls this function.
    from mmengine.runner import checkpoint as mmengine_checkpoint

    # MMEngine offers no way to change the list but this.
    mmengine_checkpoint.get_torch_safe_globals = safe_globals
    # MMEngine prints what follows 'load_from_' as the name of the loader.
    loader = mmengine_checkpoint.CheckpointLoader
    loader.register_scheme('', load_from_local, force=True)
    load = loader.load_checkpoint

    def load_or_refuse(filename: str, map_location: Any = None, logger: Any = 'current') -> Any:
        try:
            return load(filename, map_location, logger)
        except UnpicklingError:
            raise RuntimeError(refusal(filename)) from None

    loader.load_checkpoint = staticmethod(load_or_refuse)


def load_from_local(filename: str, map_location: Any = None) -> Any:
    """Read a local file for MMEngine's CheckpointLoader.

    Args:
        filename: The file.
        map_location: Where tensors go, as in ``torch.load``. Defaults to
            None, where they were saved.

    Returns:
        The content.

    Raises:
        FileNotFoundError: If there is no such file.
        RuntimeError: If it is damaged, unsafe, or no checkpoint.
    """
    return read_checkpoint(filename, map_location)


def read_checkpoint(path: str | Path, map_location: Any = 'cpu') -> Any:
    """Read a .safetensors or torch file; nothing in it is executed.

    Args:
        path: The file. What MMEngine's runner saves is allowed, other
            Python objects are not.
        map_location: Where tensors go, as in ``torch.load``. Defaults to
            'cpu'.

    Returns:
        The content.

    Raises:
        FileNotFoundError: If there is no such file.
        RuntimeError: If it is damaged, or holds other objects.
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise FileNotFoundError(f"The weights file '{path}' does not exist.")
    if path.suffix == '.safetensors' and path.is_file():
        return _read(path, lambda: load_file(path))
    fault = find_fault(path)
    if fault is not None and not is_legacy(path):
        raise RuntimeError(f"'{path}' {fault}.")
    with torch.serialization.safe_globals(safe_globals()):
        content = _read(
            path, lambda: torch.load(path, map_location=map_location, weights_only=True)
        )
    # A pickled HistoryBuffer changes its class: it brings its statistics along
    # under names that the file chooses.
    HistoryBuffer._statistics_methods.update(
        {name: getattr(HistoryBuffer, name) for name in _FUNCTIONS[HistoryBuffer]}
    )
    return content


def _read(path: Path, load: Callable[[], Any]) -> Any:
    """Read a file, and say in a sentence why that fails."""
    try:
        return load()
    except UnpicklingError:
        raise RuntimeError(refusal(path)) from None
    except (PermissionError, MemoryError):
        raise
    # The instructions of a damaged pickle end in whatever they meet.
    except Exception as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise RuntimeError(
            f"'{path}' is truncated or corrupt ({reason}); copy or download it again."
        ) from error


def find_fault(path: Path) -> str | None:
    """Look for damage in a torch file, by the checksum of each member.

    torch itself does not compare these checksums.

    Args:
        path: The file.

    Returns:
        What is wrong, a phrase that follows the file's name; None for a whole
        checkpoint.
    """
    if path.is_dir():
        return 'is a folder, no checkpoint'
    if not path.is_file():
        return 'does not exist'
    if is_legacy(path):
        return (
            'is in the format of PyTorch before 1.6, which has no checksums; convert it by '
            'torch.save(kpu_mm.weights.checkpoint_file.read_checkpoint(OLD), NEW)'
        )
    if not zipfile.is_zipfile(path):
        with path.open('rb') as file:
            is_cut = file.read(len(_ZIP)) == _ZIP
        if is_cut:
            return 'is truncated or corrupt; copy or download it again'
        return (
            'is no checkpoint of PyTorch: it is corrupt, or a plain pickle, '
            'which could run code; choose another file'
        )
    try:
        with zipfile.ZipFile(path) as archive:
            names = [Path(name).name for name in archive.namelist()]
            member = archive.testzip()
    except PermissionError:
        raise
    # zipfile raises errors of many kinds when the directory is damaged
    except Exception as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        return f'is corrupt ({reason}); copy or download it again'
    if member is not None:
        return f'is corrupt: the checksum of its part {member} differs; copy or download it again'
    if 'data.pkl' not in names:
        return 'is a zip file, but no checkpoint of PyTorch; choose another'
    if 'constants.pkl' in names:
        return 'is a TorchScript program, no checkpoint; pass its weights'
    return None


def is_legacy(path: Path) -> bool:
    """Whether this is a file in the format of PyTorch before 1.6.

    Args:
        path: The file.
    """
    if not path.is_file():
        return False
    with path.open('rb') as file:
        return file.read(len(_LEGACY)) == _LEGACY
