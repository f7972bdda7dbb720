"""TrainedInferencer and ZeroShotInferencer: two sources of a task's model."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from mmengine.config import Config
from mmengine.registry import DATASETS, MODELS
from torch import nn

from kpu_mm.datasets.class_names import as_metainfo, difference, names_in_meta
from kpu_mm.engine.check_hooks import count_classes
from kpu_mm.engine.checkpoint_hooks import split_checkpoint, tasks_in
from kpu_mm.models.backbones.base_backbone import check_choice
from kpu_mm.weights.checkpoint_file import read_checkpoint
from kpu_mm.weights.state_dict import settle_unused

from .base_inferencer import ImageInferencer
from .find_config import Model, Places, find_config, is_student, zero_shot_config
from .read_images import is_url


class TrainedInferencer(ImageInferencer):
    """An OpenMMLab model with a trained decoder and its checkpoint.

    All weights come from the checkpoint, as in ``tools/test.py``; the
    checkpoint of a joint run is split for the config of one of its tasks.
    Class names come from the checkpoint, else from the config's test data
    set, and so do the colours of pictures.

    Args:
        model: A config: its name, such as
            'downstream/coco/mask-dino_r50_4s_50e', its path, or the config
            itself.
        weights: The checkpoint, a file. Defaults to None, the config's
            ``load_from``.
        device: Where to compute; None takes a GPU if there is one. Defaults
            to None.
        show_progress: Show a progress bar. Defaults to True.

    Raises:
        FileNotFoundError: If something is missing.
        RuntimeError: If the checkpoint is broken.
        ValueError: If the checkpoint does not fit, or nothing names the
            classes.
    """

    names: Sequence[str]
    palette: Sequence[Any] | None

    def __init__(
        self,
        model: Model,
        weights: str | Path | None = None,
        device: str | None = None,
        show_progress: bool = True,
    ) -> None:
        cfg = find_config(model)
        # For _init_model, which super().__init__ calls.
        self._weights = weights or cfg.get('load_from')
        if self._weights is None:
            raise ValueError(
                'the config does not say where its weights are; pass the checkpoint as weights.'
            )
        if is_url(str(self._weights)):
            raise ValueError(
                f"'{self._weights}' is a URL: download the file and pass its path as weights."
            )
        super().__init__(cfg, device, show_progress)

    def _init_model(self, cfg: Any, weights: str | None, device: str = 'cpu') -> nn.Module:
        checkpoint = read_checkpoint(self._weights)
        # A config of one task of a joint run has a hook that splits.
        hook = cfg.get('default_hooks', {}).get('joint_checkpoint')
        if hook is not None and tasks_in(checkpoint):
            checkpoint = split_checkpoint(checkpoint, str(hook.task))
        model: nn.Module = MODELS.build(cfg.model)
        self.names = _find_names(checkpoint, cfg, model)
        self.palette = _find_palette(checkpoint, cfg, len(self.names))
        state = dict(checkpoint.get('state_dict', checkpoint))
        settle_unused(model, state)
        try:
            model.load_state_dict(state)
        except RuntimeError as error:
            # Names of the first wrong weights, of maybe hundreds.
            lines = [line.strip()[:200] for line in str(error).splitlines()]
            reason = '; '.join(line for line in lines[:4] if line)
            raise ValueError(f"'{self._weights}' does not fit the config: {reason}") from error
        return model.to(device).eval()


def _find_names(checkpoint: Mapping[str, Any], cfg: Config, model: nn.Module) -> list[str]:
    meta = (checkpoint.get('meta') or {}).get('dataset_meta') or {}
    saved = names_in_meta(meta, 'the checkpoint')
    dataset = cfg.test_dataloader.dataset
    if saved.classes is not None:
        # What the type of the dataset brings is not what a user wrote.
        given = names_in_meta(dataset.get('metainfo') or {}, 'test_dataloader.dataset')
        if text := difference(saved, given):
            raise ValueError(
                f'{text}; the labels are those of the checkpoint: write '
                f'{as_metainfo(saved.classes)}, or leave metainfo out.'
            )
        return list(saved.classes)
    # With lazy_init no annotation file is read.
    built = DATASETS.build(dict(dataset, lazy_init=True))
    names = names_in_meta(built.metainfo, 'test_dataloader.dataset')
    if names.classes is None:
        raise ValueError(
            'neither the checkpoint nor the config names the classes; set '
            'test_dataloader.dataset.metainfo=dict(classes=[...]).'
        )
    for name, count in count_classes(model).items():
        if count not in names.counts:
            raise ValueError(
                f'the checkpoint names no classes and test_dataloader.dataset has '
                f'{len(names.classes)}, but {name} has num_classes={count}; set '
                f'test_dataloader.dataset.metainfo=dict(classes=[...]) to its {count} names.'
            )
    return list(names.classes)


def _find_palette(
    checkpoint: Mapping[str, Any], cfg: Config, count: int
) -> list[tuple[int, ...]] | None:
    """A colour for each class, if the checkpoint or the config has them."""
    saved = (checkpoint.get('meta') or {}).get('dataset_meta') or {}
    given = cfg.test_dataloader.dataset.get('metainfo') or {}
    palette = saved.get('palette') or given.get('palette')
    # MMDetection also takes the name of a way to draw them.
    if not isinstance(palette, list | tuple) or len(palette) != count:
        return None
    # MMDetection's visualizer takes tuples alone, which checkpoints turn into lists.
    return [tuple(color) for color in palette]


class ZeroShotInferencer(ImageInferencer):
    """A student, or its teacher, under the teacher's own text encoder.

    For an exported student or a checkpoint, the teacher is built from the
    config of the student's run, and images are prepared as that teacher's
    own preprocessing does. Each call may have another prompt.

    Args:
        model: A folder that ``tools/export.py`` wrote, a checkpoint of a
            distillation run, or a config: its name, such as
            'zero_shot/coco/kpu-vitb', its path, or the config itself.
        weights: The student for a config that has one: a folder or a
            checkpoint. Defaults to None, the config's own.
        device: Where to compute; None takes a GPU if there is one. Defaults
            to None.
        encoder: 'student', or 'teacher' for the teacher's own image encoder.
            With 'student' a config keeps the encoder it has. Defaults to
            'student'.
        teacher: Which of the student's teachers; None takes the only one of
            the kind. Defaults to None.
        teacher_cfg: Arguments of the teacher that differ from those of the
            run or config, such as ``dict(source='/data/grounding-dino')``
            where it moved. Defaults to None.
        show_progress: Show a progress bar. Defaults to True.

    Raises:
        FileNotFoundError: If something is missing.
        ValueError: If the student has no teacher of the kind, or arguments
            contradict.
    """

    places: ClassVar[Places]

    def __init__(
        self,
        model: Model,
        weights: str | None = None,
        device: str | None = None,
        encoder: str = 'student',
        teacher: str | None = None,
        teacher_cfg: Mapping[str, Any] | None = None,
        show_progress: bool = True,
    ) -> None:
        check_choice('encoder', encoder, ('student', 'teacher'))
        cfg = zero_shot_config(self.places, model, weights, teacher, teacher_cfg)
        if encoder == 'teacher':
            self.use_teacher(cfg)
        # The pipeline of a user's own config is left as it is.
        self._adapts_pipeline = is_student(model)
        super().__init__(cfg, device, show_progress)

    def use_teacher(self, cfg: Config) -> None:
        """Put a CLIP's own image tower in the place of the student.

        Args:
            cfg: The config, which is changed.
        """
        head, key = self.places.teacher
        # The teacher normalises images itself.
        cfg.model.data_preprocessor.update(mean=None, std=None)
        cfg.model.backbone = dict(
            type='kpu_mm.TeacherEncoder',
            teacher=dict(type='kpu_mm.CLIPTeacher', **cfg.model[head][key]),
            out_type=cfg.model.backbone.get('out_type', 'maps'),
        )

    @abstractmethod
    def adapt_pipeline(self, cfg: Config) -> None:
        """Prepare images as the teacher's own preprocessing does.

        Args:
            cfg: The config, which is changed.
        """

    def _init_pipeline(self, cfg: Any) -> Callable[..., Any]:
        # The teacher, which is built by now, knows its sizes.
        if self._adapts_pipeline:
            self.adapt_pipeline(cfg)
        return super()._init_pipeline(cfg)
