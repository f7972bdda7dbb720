"""Write a student into a folder that needs nothing else."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from kpu_mm.models.backbones.base_backbone import IMAGENET_MEAN, IMAGENET_STD
from kpu_mm.models.backbones.exported_config import (
    check_description,
    fingerprint,
    hash_files,
)
from kpu_mm.models.backbones.sentinel_backbone import SentinelBackbone
from kpu_mm.models.student import Student
from kpu_mm.models.teacher_link import TeacherLink
from kpu_mm.version import __version__

from .graphs import WRITERS, write_graphs
from .model_card import model_card
from .onnx_graph import check_onnx
from .raw_student import RawStudent


def write_student(
    student: Student,
    folder: str | Path,
    formats: Sequence[str] = (),
    heads: Sequence[str] = (),
) -> Path:
    """Write a student; the folder appears at once and whole, or not at all.

    Each graph is read again and compared with the student.

    Args:
        student: What :func:`read_student` gave.
        folder: Where to; must not exist, or be empty.
        formats: Graphs to write besides the weights: 'onnx'
            (``student.onnx``), 'program' (``student.pt2``, for torch).
            Defaults to ().
        heads: Teachers into whose spaces the graphs lead, besides the
            student's own outputs. Defaults to ().

    Returns:
        The folder.

    Raises:
        FileExistsError: If the folder is not empty.
        ModuleNotFoundError: If ONNX's packages are not installed.
        RuntimeError: If a graph's results are not the student's.
        ValueError: If a teacher or a format is unknown.
    """
    if unknown := set(formats) - set(WRITERS):
        raise ValueError(
            f'formats {sorted(unknown)}: choose from {sorted(WRITERS)}.'
        )
    if heads and not formats:
        raise ValueError(
            f'heads {list(heads)} are outputs of graphs; name formats too.'
        )
    if 'onnx' in formats:
        check_onnx()
    chosen = {name: student.link(name) for name in heads}
    folder = Path(folder).expanduser().absolute()
    check_free(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder.parent, prefix='.export-') as temporary:
        partial = Path(temporary, folder.name)
        partial.mkdir()
        _fill(partial, student, formats, chosen)
        check_free(folder)
        partial.replace(folder)
    return folder


def check_free(folder: Path) -> None:
    """Raise unless a folder can be written without harm.

    Args:
        folder: The folder.

    Raises:
        FileExistsError: If it is a file or not empty.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(
            f"'{folder}' exists already and is not an empty folder; remove "
            'it or choose another one.'
        )


def _fill(
    folder: Path,
    student: Student,
    formats: Sequence[str],
    links: Mapping[str, TeacherLink],
) -> None:
    vit: Any = student.backbone.sentinel.model
    vit.config._name_or_path = ''  # may be a path of this machine
    vit.save_pretrained(folder / 'sentinel')
    backbone = _rebuild(student, folder / 'sentinel')
    config = describe(student, backbone)
    _save(
        backbone,
        folder / 'model.safetensors',
        but=backbone.external_prefixes,
        kpu_mm=fingerprint(config),
    )
    if student.links:
        projectors = nn.ModuleDict(
            {name: link.s2t for name, link in student.links.items()}
        )
        _save(projectors, folder / 'projectors.safetensors')
    if formats:
        model = RawStudent(backbone, links).eval()
        config['graphs'] = write_graphs(folder, model, formats)
    config['files'] = hash_files(folder)
    text = json.dumps(config, indent=2) + '\n'
    check_description(json.loads(text))
    (folder / 'config.json').write_text(text, encoding='utf-8')
    (folder / 'README.md').write_text(model_card(config), encoding='utf-8')


def _rebuild(student: Student, sentinel: Path) -> SentinelBackbone:
    """The student over the sentinel as it was saved."""
    kind: Any = type(student.backbone)
    backbone: SentinelBackbone = kind(str(sentinel), **student.arguments)
    name = student.backbone.sentinel.name
    backbone.sentinel.name = Path(name).name if Path(name).is_dir() else name
    backbone.load_state_dict(
        {
            name: value
            for name, value in student.backbone.state_dict().items()
            if not name.startswith(('sentinel.', '_extra_state'))
        },
        strict=False,
    )
    return backbone.eval().requires_grad_(False)


def _save(
    module: nn.Module, path: Path, but: tuple[str, ...] = (), **metadata: str
) -> None:
    state = {
        name: value.contiguous()
        for name, value in module.state_dict().items()
        if not name.startswith(but)
    }
    save_file(state, path, metadata={'format': 'pt', **metadata})


def describe(student: Student, backbone: SentinelBackbone) -> dict[str, Any]:
    """What ``config.json`` says.

    Args:
        student: The student.
        backbone: The backbone that is written.

    Returns:
        Arguments, provenance, input and outputs.
    """
    teachers = {}
    for name, config in student.teachers.items():
        teachers[name] = dict(config=_portable(config))
        if name in student.links:
            teachers[name] |= _channels(student.links[name].s2t)
            teachers[name] |= student.links[name].levels._asdict()
    return dict(
        kpu_mm_version=__version__,
        torch_version=str(torch.__version__),
        backbone=dict(
            type=f'kpu_mm.{type(backbone).__name__}',
            sentinel='sentinel',
            **student.arguments,
        ),
        sentinel=dict(
            name=backbone.sentinel.name, sha256=backbone.sentinel.checksum()
        ),
        input=dict(
            channels='RGB',
            range=[0, 255],
            mean=list(IMAGENET_MEAN),
            std=list(IMAGENET_STD),
            min_size=32,
        ),
        strides=list(backbone.strides),
        channels=backbone.embed_dims,
        teachers=teachers,
    )


def _portable(config: Mapping[str, Any]) -> dict[str, Any]:
    """A teacher's config without the path of a config file.

    Such a file is a program of this machine; readers refuse to run it.
    """
    kept = dict(config)
    path = kept.get('config')
    if isinstance(path, str) and '::' not in path:
        del kept['config']
    if isinstance(inner := kept.get('teacher'), Mapping):
        kept['teacher'] = _portable(inner)
    return kept


def _channels(projector: nn.Module) -> dict[str, Any]:
    """Channels that a projector gives."""
    biases = {
        name.removesuffix('.2.bias'): len(bias)
        for name, bias in projector.state_dict().items()
        if name.endswith('.2.bias')
    }
    return dict(
        summary_channels=biases.pop('summary', None),
        map_channels=list(biases.values()),
    )
