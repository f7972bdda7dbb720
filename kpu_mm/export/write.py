"""Write a student into a folder that needs nothing else."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
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
    sentinel_config,
)
from kpu_mm.models.backbones.sentinel_backbone import SentinelBackbone
from kpu_mm.models.student import Student
from kpu_mm.models.teacher_link import TeacherLink
from kpu_mm.version import __version__

from .graphs import WRITERS, RawStudent, write_graphs
from .model_card import model_card


def write_student(
    student: Student, folder: str | Path, formats: Sequence[str] = (), heads: Sequence[str] = ()
) -> Path:
    """Write a student; the folder appears at once and whole, or not at all.

    Each graph is read again and compared with the student.

    Args:
        student: What :func:`read_student` returned.
        folder: Where to write; it must not exist, or be empty.
        formats: Graphs to write besides the weights: 'onnx'
            (``student.onnx``), 'program' (``student.pt2``, for torch).
            Defaults to ().
        heads: Teachers whose features the graphs predict, besides the
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
        raise ValueError(f'formats {sorted(unknown)}: choose from {sorted(WRITERS)}.')
    if heads and not formats:
        raise ValueError(f'heads {list(heads)} are outputs of graphs; name formats too.')
    links = {name: student.link(name) for name in heads}
    folder = Path(folder).expanduser().absolute()
    check_target(folder, formats)
    folder.parent.mkdir(parents=True, exist_ok=True)
    # In the same parent folder, since a rename across file systems is a copy.
    with TemporaryDirectory(dir=folder.parent, prefix='.export-') as temporary:
        partial = Path(temporary, folder.name)
        partial.mkdir()
        _fill(partial, student, formats, links)
        # Somebody may have written into the folder meanwhile.
        check_target(folder)
        partial.replace(folder)
    return folder


def check_target(folder: Path, formats: Sequence[str] = ()) -> None:
    """Raise unless a folder and its graphs can be written.

    Args:
        folder: The folder.
        formats: As in :func:`write_student`. Defaults to ().

    Raises:
        FileExistsError: If it is a file or not empty.
        ModuleNotFoundError: If ONNX's packages are not installed.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(
            f"'{folder}' exists already and is not an empty folder; remove "
            'it or choose another one.'
        )
    if 'onnx' in formats:
        needed = ('onnx', 'onnxruntime', 'onnxscript')
        missing = [name for name in needed if find_spec(name) is None]
        if missing:
            raise ModuleNotFoundError(
                f'ONNX export needs {", ".join(missing)}: run `pip install {" ".join(missing)}`.'
            )


def _fill(
    folder: Path, student: Student, formats: Sequence[str], links: Mapping[str, TeacherLink]
) -> None:
    student.backbone.sentinel.save(folder / 'sentinel')
    backbone = _rebuild(student, folder / 'sentinel')
    config = describe(student, backbone) | dict(sentinel_config=sentinel_config(folder))
    _save(
        backbone,
        folder / 'model.safetensors',
        exclude=backbone.external_prefixes,
        kpu_mm=fingerprint(config),
    )
    if student.links:
        projectors = nn.ModuleDict({name: link.s2t for name, link in student.links.items()})
        _save(projectors, folder / 'projectors.safetensors')
    if formats:
        model = RawStudent(backbone, links).eval()
        config['graphs'] = write_graphs(folder, model, formats)
    # The files are hashed after all of them are written.
    config['files'] = hash_files(folder)
    text = json.dumps(config, indent=2) + '\n'
    check_description(json.loads(text))
    (folder / 'config.json').write_text(text, encoding='utf-8')
    processor = json.dumps(image_processor(), indent=2) + '\n'
    (folder / 'preprocessor_config.json').write_text(processor, encoding='utf-8')
    (folder / 'README.md').write_text(model_card(config), encoding='utf-8')


def _rebuild(student: Student, sentinel: Path) -> SentinelBackbone:
    """Build the student over the sentinel as it was saved."""
    kind: Any = type(student.backbone)
    backbone: SentinelBackbone = kind(str(sentinel), **student.arguments)
    # Keep the hub name; of a folder of this machine keep the last part only.
    name = student.backbone.sentinel.name
    backbone.sentinel.name = Path(name).name if Path(name).is_dir() else name
    # The sentinel's weights come from the folder; the extra state would
    # compare its name. Other parts are not written.
    left_out = ('sentinel.', '_extra_state', *backbone.external_prefixes)
    state = {
        name: value
        for name, value in student.backbone.state_dict().items()
        if not name.startswith(left_out)
    }
    backbone.load_state_dict(state, strict=False)
    return backbone.eval().requires_grad_(False)


def _save(module: nn.Module, path: Path, exclude: tuple[str, ...] = (), **metadata: str) -> None:
    state = {
        name: value.contiguous()
        for name, value in module.state_dict().items()
        if not name.startswith(exclude)
    }
    save_file(state, path, metadata={'format': 'pt', **metadata})


def describe(student: Student, backbone: SentinelBackbone) -> dict[str, Any]:
    """Return the content of ``config.json``.

    Args:
        student: The student.
        backbone: The backbone that is written.

    Returns:
        Arguments, provenance, input and outputs.
    """
    teachers: dict[str, dict[str, Any]] = {}
    for name, config in student.teachers.items():
        teachers[name] = dict(config=_portable(config))
        if name in student.links:
            link = student.links[name]
            teachers[name] |= dict(
                summary_channels=link.summary_channels,
                # One MLP for each pair of levels, more than link.channels.
                map_channels=[mlp[-1].out_features for mlp in link.s2t.maps],
                **link.levels._asdict(),
            )
    return dict(
        # how transformers finds its classes, see kpu_mm.hf_models
        model_type='kpu',
        architectures=['KPUModel'],
        kpu_mm_version=__version__,
        torch_version=str(torch.__version__),
        backbone=dict(
            type=f'kpu_mm.{type(backbone).__name__}', sentinel='sentinel', **student.arguments
        ),
        sentinel=dict(name=backbone.sentinel.name, sha256=backbone.sentinel.checksum()),
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


def image_processor() -> dict[str, Any]:
    """Return the content of ``preprocessor_config.json``, for transformers."""
    steps = ('convert_rgb', 'resize', 'center_crop', 'rescale', 'normalize')
    return dict(
        image_processor_type='BitImageProcessor',
        **{f'do_{step}': True for step in steps},
        # Resize and crop are DINOv2's, for single vectors of images. Maps of
        # whole images are had without them, as the student takes any size.
        size=dict(shortest_edge=256),
        resample=3,
        crop_size=dict(height=224, width=224),
        rescale_factor=1 / 255,
        image_mean=[round(value / 255, 6) for value in IMAGENET_MEAN],
        image_std=[round(value / 255, 6) for value in IMAGENET_STD],
    )


def _portable(config: Mapping[str, Any]) -> dict[str, Any]:
    """Remove the paths of config files from a teacher's config.

    Such a file is a program of this machine; readers refuse to run it.
    """
    kept = dict(config)
    path = kept.get('config')
    # 'mmdet::NAME' is a config that the toolbox ships, no path.
    if isinstance(path, str) and '::' not in path:
        del kept['config']
    # A mosaic teacher wraps another one.
    if isinstance(inner := kept.get('teacher'), Mapping):
        kept['teacher'] = _portable(inner)
    return kept
