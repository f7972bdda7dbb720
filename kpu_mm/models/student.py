"""What a distillation run has learnt, read without building its teachers."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.config import Config
from torch import Tensor

from kpu_mm.registry import MODELS, find_model
from kpu_mm.weights.state_dict import load_state, select_prefix

from .backbones import load_exported
from .backbones.exported import load_strictly
from .backbones.exported_config import read_description
from .backbones.sentinel_backbone import SentinelBackbone
from .level_map import LevelMap
from .normalizers import AffineMap
from .projectors import MLPProjector
from .teacher_link import TeacherLink

_SYNC = ('SyncBN', 'MMSyncBN')
# what concerns training, or is set anew
_LEFT_OUT = ('type', 'sentinel', 'init_cfg', 'with_cp', 'frozen', 'norm_eval')
# what keys of distillers before TeacherLink start with
_OLD_LAYOUT = ('projectors.', 'normalizers.', 'level_record.')


class Student(NamedTuple):
    """The result of a distillation run.

    Args:
        backbone: The backbone with its weights, in eval mode.
        arguments: Its arguments besides ``sentinel``.
        links: For each teacher with a projector h_s2t, the link into its own
            space; empty for a model without teachers.
        teachers: The teachers' configs by name.
    """

    backbone: SentinelBackbone
    arguments: dict[str, Any]
    links: dict[str, TeacherLink]
    teachers: dict[str, Any]

    def link(self, teacher: str) -> TeacherLink:
        """The link into a teacher's space.

        Args:
            teacher: Name of a teacher of the run.

        Raises:
            ValueError: If there is no such teacher.
        """
        if teacher not in self.links:
            raise ValueError(
                f'the student has no projector into a teacher {teacher!r}; '
                f'it has those of {sorted(self.links)}.'
            )
        return self.links[teacher]


def open_student(source: str | Path, config: str | Path | None = None) -> Student:
    """Load a student from wherever it is.

    Args:
        source: A folder that ``tools/export.py`` wrote, or a checkpoint.
        config: Config of the run that wrote the checkpoint; None takes the
            one that MMEngine left beside it. Defaults to None.

    Returns:
        The student.

    Raises:
        FileNotFoundError: If something is missing.
        RuntimeError: If something is broken or does not fit.
        ValueError: If a config is given for a folder.
    """
    source = Path(source).expanduser()
    # A folder is an exported student, a file a checkpoint.
    if source.is_dir():
        if config is not None:
            raise ValueError(
                f"the exported student '{source}' brings its own config; remove config='{config}'."
            )
        return load_student(source)
    if config is None:
        return read_student(_config_of(source), source)
    return read_student(Config.fromfile(config).model.to_dict(), source)


def read_teachers(source: str | Path) -> dict[str, Any]:
    """The teachers' configs by name, read without any weights.

    Args:
        source: A folder that ``tools/export.py`` wrote, or a checkpoint
            beside the config of its run.

    Returns:
        Each teacher's config.

    Raises:
        FileNotFoundError: If something is missing.
        RuntimeError: If a file is broken.
    """
    source = Path(source).expanduser()
    if source.is_dir():
        # Whoever asks for teachers alone is going to choose by their types.
        from .teachers import BaseTeacher

        described = read_description(source)['teachers']
        for name, entry in described.items():
            kind = entry['config']['type']
            if find_model(kind, BaseTeacher) is None:
                raise RuntimeError(
                    f"'{source / 'config.json'}': teachers.{name}.config.type "
                    f'must be a registered teacher, but is {kind!r}; import '
                    'the module that registers it.'
                )
        return {name: entry['config'] for name, entry in described.items()}
    return dict(_config_of(source).get('teachers', {}))


def read_student(model: Mapping[str, Any], checkpoint: str | Path) -> Student:
    """Read the student out of a checkpoint.

    Only the sentinel's weights must be on this machine; teachers need not.

    Args:
        model: Config of a model with a KPUBackbone or ViTBackbone as
            ``student`` (a distiller) or ``backbone`` (any model of
            OpenMMLab).
        checkpoint: Its checkpoint.

    Returns:
        The student.

    Raises:
        FileNotFoundError: If the checkpoint or the sentinel is missing.
        RuntimeError: If the checkpoint is broken or does not fit the config,
            or its projectors are no MLPProjectors.
        ValueError: If the config has no such backbone.
    """
    place, config = _find_backbone(model)
    arguments = {k: v for k, v in config.items() if k not in _LEFT_OUT}
    norm = arguments.get('norm_cfg')
    if norm is not None and norm['type'] in _SYNC:
        # The same weights and results, on one process and on the CPU too.
        arguments['norm_cfg'] = dict(norm, type='BN')
    state = load_state(checkpoint)  # before minutes are spent on the rest
    check_layout(state, checkpoint)
    backbone: SentinelBackbone = MODELS.build(
        dict(arguments, type=config['type'], sentinel=config['sentinel'])
    )
    load_strictly(backbone, checkpoint, f'{place}.')
    return Student(
        backbone.eval(),
        arguments,
        _read_links(state, backbone.strides, model.get('projector')),
        {k: dict(cfg) for k, cfg in model.get('teachers', {}).items()},
    )


def check_layout(state: Iterable[str], path: str | Path) -> None:
    """Refuse a distiller's checkpoint of an earlier version.

    Args:
        state: Names of its weights.
        path: The file, for the error.

    Raises:
        RuntimeError: If it has the old layout.
    """
    if any(name.startswith(_OLD_LAYOUT) for name in state):
        raise RuntimeError(
            f"'{path}' was written by an earlier version of kpu_mm, which stored projectors in "
            'another way; train again, or read it with that version.'
        )


def _read_links(
    state: Mapping[str, Tensor], strides: Sequence[int], config: Any
) -> dict[str, TeacherLink]:
    """The links of a run into the teachers' own spaces."""
    below = select_prefix(state, 'links.')
    links = {}
    for name in dict.fromkeys(key.split('.')[0] for key in below):
        own = select_prefix(below, f'{name}.')
        weights = select_prefix(own, 's2t.')
        if not weights:  # trained without s2t
            continue
        levels = LevelMap.from_tensor(own['_extra_state'])
        projector = MLPProjector.from_weights(weights, name, (config or {}).get('type'))
        maps = select_prefix(own, 'normalizer.')
        # The inverse normaliser moves into the last layers of the projector.
        if 'summary.mean' in maps:
            _affine(maps, 'summary').fold_into(projector.summary[-1])
        if 'maps.0.mean' in maps:
            for mlp, (i, _) in zip(projector.maps, levels.pairs, strict=True):
                _affine(maps, f'maps.{i}').fold_into(mlp[-1])
        links[name] = TeacherLink(levels, strides, dict(s2t=projector)).eval()
    return links


def _affine(state: Mapping[str, Tensor], name: str) -> AffineMap:
    return AffineMap(*(state[f'{name}.{part}'] for part in ('mean', 'weight', 'inverse')))


def load_student(folder: str | Path) -> Student:
    """Load all of an exported student.

    Args:
        folder: The folder that ``tools/export.py`` wrote.

    Returns:
        The student.

    Raises:
        FileNotFoundError: If a file of the folder is missing.
        RuntimeError: If a file is broken, or weights are missing.
    """
    folder = Path(folder).expanduser()
    backbone = load_exported(folder)
    config = read_description(folder)
    described = config['teachers']
    projected = [n for n, t in described.items() if 'map_channels' in t]
    path = folder / 'projectors.safetensors'
    state = load_state(path) if projected else {}
    found = sorted({name.split('.')[0] for name in state})
    if found != sorted(projected):
        raise RuntimeError(
            f"'{path}' has the projectors {found}, but config.json those of "
            f'{sorted(projected)}; export the student again.'
        )
    links = {}
    # Exported projectors lead into the teachers' own spaces already.
    for name in projected:
        weights = select_prefix(state, f'{name}.')
        links[name] = TeacherLink(
            LevelMap.from_dict(described[name]),
            backbone.strides,
            dict(s2t=MLPProjector.from_weights(weights, name)),
        ).eval()
    return Student(
        backbone,
        {k: v for k, v in config['backbone'].items() if k not in _LEFT_OUT},
        links,
        {name: teacher['config'] for name, teacher in described.items()},
    )


def _config_of(checkpoint: Path) -> dict[str, Any]:
    """The model in the config that MMEngine left next to a checkpoint.

    Whoever opens a checkpoint has not asked for the files next to it to be
    run. MMEngine writes values and calls of ``dict`` only: no more is read.
    Other scripts may lie there too; only a file that sets a model counts.
    """
    if not checkpoint.is_file():
        raise FileNotFoundError(
            f"The student '{checkpoint}' does not exist: pass a checkpoint "
            'of a distillation run or a folder that tools/export.py wrote.'
        )
    models, faults = {}, []
    for path in sorted(checkpoint.parent.glob('*.py')):
        try:
            models[path.name] = _read_model(path)
        except (OSError, RecursionError, SyntaxError, TypeError, ValueError) as error:
            faults.append(f'{path.name}: {error}')
    if len(models) == 1:
        return next(iter(models.values()))
    if models:
        raise FileNotFoundError(
            f"There are {len(models)} configs beside '{checkpoint}' ({', '.join(models)}): pass "
            'the one of its run as config.'
        )
    found = f' ({"; ".join(faults)}), and no other is run unasked' if faults else ''
    raise FileNotFoundError(
        f"There is no config as MMEngine writes it beside '{checkpoint}'{found}: pass the one of "
        'its run as config if you trust it.'
    )


def _read_model(path: Path) -> dict[str, Any]:
    """The model that a file sets; ValueError and the like if it sets none."""
    for line in ast.parse(path.read_text(encoding='utf-8')).body:
        match line:
            case ast.Assign([ast.Name('model')], value):
                return dict(literal(value))
    raise ValueError('it sets no model')


def literal(node: ast.expr) -> Any:
    """What an expression of values and calls of ``dict`` stands for.

    Args:
        node: An expression in a config, as MMEngine writes it.

    Raises:
        ValueError: If there is anything else in it.
    """
    match node:
        case ast.Call(ast.Name('dict'), [], pairs) if all(pair.arg for pair in pairs):
            return {pair.arg: literal(pair.value) for pair in pairs}
        case ast.Dict(keys, values):
            # a key of None stands for **, which literal_eval refuses
            return {
                ast.literal_eval(key or node): literal(value)
                for key, value in zip(keys, values, strict=True)
            }
        case ast.List(items):
            return [literal(item) for item in items]
        case ast.Tuple(items):
            return tuple(literal(item) for item in items)
    return ast.literal_eval(node)


def _find_backbone(model: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    for place in ('student', 'backbone'):
        config = model.get(place)
        kind = config.get('type') if isinstance(config, Mapping) else None
        found = find_model(kind, SentinelBackbone)
        if found is not None:
            return place, dict(config, type=found)  # type: ignore[arg-type]
    raise ValueError(
        f'the model {model.get("type")!r} has no kpu_mm.KPUBackbone or kpu_mm.ViTBackbone as '
        '`student` or `backbone`; pass the config of a distillation run.'
    )
