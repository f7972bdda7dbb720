"""Class names: what the labels of a dataset mean, and how two lists differ."""

from __future__ import annotations

import json
import mmap
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from itertools import zip_longest
from os.path import getsize, isfile
from typing import Any, NamedTuple

from .encoded_image import DataError

_KEY = b'"categories"'
_SHOWN = 100  # names in a message; the longest lists have thousands


class ClassNames(NamedTuple):
    """What the labels 0, 1, 2, ... of a dataset mean.

    Args:
        place: Where the names are from, for messages.
        classes: The names in the order of the labels. Defaults to None,
            nothing names the classes.
        folders: The folders of the classes in the order of the labels.
            Defaults to None, the labels are not read from folders.
        reduce_zero_label: Whether label 0 is ignored and the others move
            down by one. Defaults to False.
        counts: How many classes a head may have. Defaults to ().
    """

    place: str
    classes: tuple[str, ...] | None = None
    folders: tuple[str, ...] | None = None
    reduce_zero_label: bool = False
    counts: tuple[int, ...] = ()


def names_in_meta(meta: Mapping[str, Any], place: str) -> ClassNames:
    """Take the names out of the meta information of a dataset.

    Args:
        meta: ``metainfo`` of a dataset, or ``dataset_meta`` of a checkpoint.
        place: Where it is from, for messages.

    Raises:
        DataError: If ``classes`` is a text.
    """
    # Toolboxes differ in the key's case.
    meta = {str(key).lower(): value for key, value in meta.items()}
    classes, folders = meta.get('classes'), meta.get('folders')
    if isinstance(classes, str):
        raise DataError(
            f'the classes of {place} are the text {classes!r}, of which each letter would be a '
            f'class; write metainfo=dict(classes=({classes!r},)).'
        )
    if classes is None:
        return ClassNames(place)
    counts = [len(classes)]
    # Some panoptic models have one head for things and one for the rest,
    # which may have one more class for all things.
    if 'stuff_classes' in meta:
        stuff = len(meta['stuff_classes'])
        counts += [len(classes) - stuff, stuff, stuff + 1]
    return ClassNames(
        place,
        tuple(map(str, classes)),
        tuple(folders) if folders else None,
        bool(meta.get('reduce_zero_label')),
        tuple(counts),
    )


def find_names(dataset: Any, place: str) -> list[ClassNames]:
    """Find out what the labels mean, and whether all that names them agrees.

    Args:
        dataset: A dataset of any toolbox, or one that wraps others.
        place: What it is for, such as 'the training data'.

    Returns:
        The names of each wrapped dataset, or those of the only one.

    Raises:
        DataError: If the annotation file or the folders have other classes
            than ``metainfo``, or the same ones in another order.
    """
    return [_names_of_one(one, place) for one in _unwrap(dataset)]


def difference(first: ClassNames, second: ClassNames) -> str | None:
    """Describe the first label that two places understand differently.

    Folders may be called otherwise than the classes, as ImageNet's are. Where
    there are folders, class names therefore differ only if a name that both
    have belongs to another label.

    Args:
        first: The names of one place.
        second: Those of the other.

    Returns:
        Half a sentence, or None if they agree or one has no names.
    """
    if first.classes is None or second.classes is None:
        return None
    freely = bool(first.folders or second.folders)
    for ours, theirs, exactly in (
        (first.folders, second.folders, True),
        (first.folders, second.classes, False),
        (first.classes, second.folders, False),
        (first.classes, second.classes, not freely),
    ):
        if ours is None or theirs is None:
            continue
        i = _first_fault(ours, theirs, exactly)
        if i is None:
            continue
        one, other = (repr(names[i]) if i < len(names) else 'none' for names in (ours, theirs))
        text = f'class {i} is {one} in {first.place}, but {other} in {second.place}'
        if missing := [name for name in ours if name not in theirs]:
            text += f'; the latter has no {", ".join(map(repr, missing[:3]))}'
        if missing := [name for name in theirs if name not in ours]:
            text += f'; the former has no {", ".join(map(repr, missing[:3]))}'
        return text
    if first.reduce_zero_label != second.reduce_zero_label:
        return (
            f'reduce_zero_label is {first.reduce_zero_label} in {first.place}, but '
            f'{second.reduce_zero_label} in {second.place}'
        )
    return None


def as_metainfo(names: Sequence[str]) -> str:
    """Write names as a config does.

    Args:
        names: The names of all classes.
    """
    shown = ', '.join(map(repr, names[:_SHOWN])) + (',' if len(names) == 1 else '')
    rest = f', ... {len(names)} names in all' if len(names) > _SHOWN else ''
    return f'metainfo=dict(classes=({shown}{rest}))'


def read_categories(path: str) -> dict[int, str]:
    """Read the categories of a COCO file, and as little else as possible.

    In COCO's own files they come last, so a search from the end finds them
    at once, however many annotations there are.

    Args:
        path: The file.

    Returns:
        Names by id in the order of the file; none if it is no COCO file.
    """
    # An empty file cannot be mapped.
    if not isfile(path) or not getsize(path):
        return {}
    with open(path, 'rb') as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        start = len(data)
        while (start := data.rfind(_KEY, 0, start)) >= 0:
            found = _read_list(data, start + len(_KEY))
            # An annotation may have an entry of the same name.
            if found and all(isinstance(c, dict) and {'id', 'name'} <= c.keys() for c in found):
                return {category['id']: str(category['name']) for category in found}
    return {}


def _first_fault(ours: Sequence[str], theirs: Sequence[str], exactly: bool) -> int | None:
    """Which label is the first that two lists understand differently."""
    # Names that both lists have can be in the wrong place; None is the end.
    both = {*(set(ours) & set(theirs)), None}
    pairs = enumerate(zip_longest(ours, theirs))
    return next((i for i, (a, b) in pairs if a != b and (exactly or {a, b} & both)), None)


def _read_list(data: mmap.mmap, start: int) -> Any:
    """Read the list behind a key; None if there is no whole one."""
    size = 1 << 13
    while True:
        text = data[start : start + size].decode('utf-8', 'replace').lstrip(' \t\r\n:')
        if text and not text.startswith('['):
            return None
        try:
            return json.JSONDecoder().raw_decode(text)[0]
        except ValueError:
            if start + size >= len(data):
                return None
            size *= 8


def _unwrap(dataset: Any) -> Iterator[Any]:
    """The datasets in wrappers of any kind, such as ConcatDataset."""
    inner = getattr(dataset, 'datasets', None) or [getattr(dataset, 'dataset', None)]
    for one in inner:
        if one is None:
            yield dataset
        else:
            yield from _unwrap(one)


def _names_of_one(dataset: Any, place: str) -> ClassNames:
    path = getattr(dataset, 'ann_file', None)
    where = path or getattr(dataset, 'img_prefix', None) or getattr(dataset, 'data_root', None)
    place = f"{place} ('{where}')" if where else place
    names = names_in_meta(getattr(dataset, 'metainfo', None) or {}, place)
    if names.classes is None:
        return names
    if path and hasattr(dataset, 'COCOAPI'):
        _check_categories(dataset, str(path), names.classes)
    folders = getattr(dataset, 'folder_to_idx', None)
    if folders:
        names = names._replace(folders=tuple(folders))
        _check_folders(names)
    return names


def _check_categories(dataset: Any, path: str, classes: Sequence[str]) -> None:
    """Raise if a COCO file and ``metainfo`` differ on what a label means."""
    categories = read_categories(path)
    file = list(categories.values())
    ids = getattr(dataset, 'cat_ids', None)
    # MMDetection numbers the categories that metainfo names in the order of
    # the file; a dataset that is not loaded yet will.
    labels = [n for n in file if n in classes] if ids is None else [categories[i] for i in ids]
    text = difference(
        ClassNames(f"the categories of '{path}'", tuple(labels)),
        ClassNames('metainfo', tuple(classes)),
    )
    if not file or text is None:
        return
    # What was meant: all categories if most of metainfo's are not there, else
    # metainfo's without typing errors.
    wanted = set(file)
    if 2 * len(wanted & set(classes)) >= len(classes):
        wanted = {(get_close_matches(name, file, 1) or [name])[0] for name in classes}
    remedy = [name for name in file if name in wanted]
    raise DataError(
        f'{text}; the order of the file counts: bring its categories into that of metainfo, or '
        f'write for train, val and test, with num_classes={len(remedy)}: {as_metainfo(remedy)}'
    )


def _check_folders(names: ClassNames) -> None:
    """Raise if folders of classes are hidden or other than in ``metainfo``."""
    folders, classes = names.folders or (), names.classes or ()
    for i, folder in enumerate(folders):
        if folder.startswith('.'):
            raise DataError(
                f'{names.place} take the hidden folder {folder!r} for class {i}, which shifts '
                "labels; delete it, or write 'kpu_mm.CustomDataset' or 'kpu_mm.ImageNet' for the "
                'type of the dataset, which skip it.'
            )
    # `difference` compares freely here, as these are names of folders.
    if text := difference(
        ClassNames(f'the folders of {names.place}', folders, folders),
        ClassNames('metainfo', classes),
    ):
        raise DataError(
            f'{text}; there are {len(folders)} folders and {len(classes)} names: add or delete '
            f'folders, or write {as_metainfo(folders)}'
        )
