"""Pickles of numpy arrays, such as detectron2's, read as data."""

from __future__ import annotations

import codecs
import pickle
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

# numpy 2 moved these; old pickles name the old place
_MODULES = ('numpy.core.multiarray', 'numpy._core.multiarray')
_REBUILD_ARRAY: Any = np.empty(0).__reduce__()[0]
_REBUILD_SCALAR: Any = np.float32(0).__reduce__()[0]
_ALLOWED: dict[tuple[str, str], Callable[..., Any]] = {
    ('numpy', 'ndarray'): np.ndarray,
    ('numpy', 'dtype'): np.dtype,
    ('collections', 'OrderedDict'): OrderedDict,
    ('_codecs', 'encode'): codecs.encode,
    **{(module, '_reconstruct'): _REBUILD_ARRAY for module in _MODULES},
    **{(module, 'scalar'): _REBUILD_SCALAR for module in _MODULES},
}


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f'{module}.{name}') from None


def load_numpy_pickle(path: str | Path) -> Any:
    """Read containers of numbers, text and numpy arrays from a pickle.

    Args:
        path: The file; pickles of Python 2 included.

    Returns:
        The content.

    Raises:
        FileNotFoundError: If there is no such file.
        RuntimeError: If it is truncated, corrupt, or names anything that
            numpy arrays are not built from.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"The weights file '{path}' does not exist.")
    with path.open('rb') as file:
        try:
            return _ArrayUnpickler(file, encoding='latin1').load()
        # whatever a broken stream of instructions may end in
        except Exception as error:
            raise RuntimeError(
                f"'{path}' is refused: it is corrupt, or holds objects "
                f'besides numpy arrays, which could run code ({error}).'
            ) from error
