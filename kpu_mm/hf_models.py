"""Exported students as models of transformers.

``import kpu_mm`` has them registered as soon as transformers' Auto classes are
imported, so that ``AutoModel`` and ``AutoBackbone`` load an exported folder
without any code from it. The weights are those of
:func:`kpu_mm.models.backbones.load_exported`, checked as there.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from huggingface_hub import HfApi
from torch import Tensor, nn
from transformers import AutoBackbone, AutoModel, PreTrainedModel
from transformers.modeling_outputs import BackboneOutput, BaseModelOutputWithPooling
from transformers.utils.backbone_utils import BackboneMixin
from typing_extensions import Self

from .hf_config import KPUConfig


class KPUPreTrainedModel(PreTrainedModel):
    """What both models have in common: a backbone, its files and gradients.

    Gradients are as ``config.frozen`` says: of 'sentinel' the adapter learns,
    of 'all' nothing, and of 'none' all does. Unlike checkpoints of OpenMMLab's
    runners, state dicts hold the sentinel's weights, too, since a larger model
    of transformers is saved in one file.

    Args:
        config: The configuration.
        **options: Arguments of the backbone that differ from the
            configuration's.

    Attributes:
        links: For each teacher with an exported projector, the link into its
            space; written again with the model, and no part of it.
    """

    config_class = KPUConfig
    base_model_prefix = 'kpu'
    main_input_name = 'pixel_values'

    def __init__(self, config: KPUConfig, **options: Any) -> None:
        # Who imports transformers' Auto classes loads no backbones.
        from .models.backbones.base_backbone import check_choice
        from .models.backbones.exported_config import check_backbone
        from .models.backbones.sentinel_backbone import SentinelBackbone
        from .registry import find_model
        from .weights.pretrained import check_plain

        super().__init__(config)
        check_choice('frozen', config.frozen, ('sentinel', 'all', 'none'))
        # It may come from anybody's config.json.
        try:
            check_backbone(config.backbone)
        except ValueError as error:
            raise ValueError(f'KPUConfig: {error}; correct it or export again.') from error
        check_plain(config.sentinel_config, 'sentinel_config of KPUConfig')
        arguments = _arguments(config) | options
        kind: Any = find_model(config.backbone['type'], SentinelBackbone)
        # Of a sentinel that is trained, the state dict holds the weights.
        self.backbone: SentinelBackbone = kind(
            sentinel=dict(config.sentinel_config), frozen='none', **arguments
        )
        # transformers loads it weight by weight.
        self.backbone.compares_sentinel = False
        if source := getattr(config, 'sentinel', None):
            self.backbone.sentinel.name = source['name']
        if config.frozen == 'all':
            self.backbone.requires_grad_(False)
        elif config.frozen == 'sentinel':
            self.backbone.sentinel.requires_grad_(False)
        # Its constructor has initialised it, unless transformers makes a model
        # without memory in order to fill it from files.
        for p in self.backbone.parameters():
            if not p.is_meta:
                p._is_hf_initialized = True
        self.links: dict[str, Any] = {}

    def _init_weights(self, module: nn.Module) -> None:
        """Give the weights that no file holds what the constructor gives."""
        if module is not self:
            return
        new = [p for p in self.backbone.parameters() if not getattr(p, '_is_hf_initialized', False)]
        if new:
            config: Any = self.config
            fresh = type(self)(config).backbone.to(new[0].device)
            for own, value in zip(self.backbone.parameters(), fresh.parameters(), strict=True):
                if not getattr(own, '_is_hf_initialized', False):
                    own.data.copy_(value.data)

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        *model_args: Any,
        config: KPUConfig | None = None,
        **kwargs: Any,
    ) -> Any:
        """Load an exported student.

        Args:
            pretrained_model_name_or_path: A folder that ``tools/export.py`` or
                :meth:`save_pretrained` wrote, or its name on the hub.
            *model_args: Not taken, as there are no such arguments.
            config: Its configuration; None reads it. Defaults to None.
            **kwargs: As of any model of transformers, such as ``dtype``; and
                ``frozen``, ``out_features`` and ``out_indices``.

        Returns:
            The model in eval mode; with ``output_loading_info`` a pair.

        Raises:
            FileNotFoundError: If a file of the folder is missing.
            RuntimeError: If a file is broken, or weights are missing.
        """
        from .models.backbones.exported_config import sentinel_config
        from .models.student import load_student
        from .weights.hub import HUB_OPTIONS, fetch_exported

        name, inner = str(pretrained_model_name_or_path), kwargs.pop('subfolder', None) or '.'
        options = {key: kwargs[key] for key in HUB_OPTIONS if key in kwargs}
        folder = fetch_exported(name, inner, **options)
        if config is None:
            config, kwargs = KPUConfig.from_pretrained(
                str(folder), return_unused_kwargs=True, **kwargs
            )
        # Earlier exports lack it.
        config.sentinel_config = sentinel_config(folder)
        # Part of a larger model that is made without memory: it has the weights.
        if nn.Linear(1, 1).weight.is_meta:
            return cls(config)
        student = load_student(folder)
        backbone = student.backbone
        state = backbone.state_dict() | backbone.sentinel.state_dict(prefix='sentinel.')
        state = {
            f'backbone.{key}': value
            for key, value in state.items()
            if not key.startswith(backbone.external_prefixes)
        }
        loaded = super().from_pretrained(
            None, *model_args, config=config, state_dict=state, **kwargs
        )
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        model.links = student.links
        model.name_or_path = model.config.name_or_path = name
        return loaded

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """Load a state dict; a RuntimeError refuses the file of an exported student."""
        # transformers' Trainer reads that file, and would find no weight in it
        if state_dict and not any(key.startswith('backbone.') for key in state_dict):
            raise RuntimeError(
                "These weights are an exported student's file: load the folder with "
                "from_pretrained. transformers' Trainer cannot resume from it."
            )
        return super().load_state_dict(state_dict, strict, assign)

    def save_pretrained(  # type: ignore[override]
        self, save_directory: str | Path, **kwargs: Any
    ) -> Path:
        """Write what ``tools/export.py`` writes.

        Args:
            save_directory: The folder; it must not exist, or be empty.
            **kwargs: Options of transformers at their defaults.

        Returns:
            The folder.

        Raises:
            FileExistsError: If the folder is not empty.
            ValueError: If an option asks for another form of the files.
        """
        from .export.write import write_student
        from .models.student import Student

        defaults = dict(state_dict=None, safe_serialization=True, is_main_process=True)
        for key, value in kwargs.items():
            if value is not defaults.get(key):
                raise ValueError(
                    f'{key}={value!r}: a student is written as tools/export.py does, without '
                    'this option; remove it.'
                )
        described = getattr(self.config, 'teachers', {})
        teachers = {name: entry['config'] for name, entry in described.items()}
        student = Student(self.backbone, _arguments(self.config), self.links, teachers)
        return write_student(student, save_directory)

    def push_to_hub(  # type: ignore[override]
        self, repo_id: str, *, private: bool | None = None, token: str | None = None, **options: Any
    ) -> Any:
        """Upload what :meth:`save_pretrained` writes, with its model card.

        Args:
            repo_id: Name of the model on the hub; it is made if it is not there.
            private: Whether a new one is private; None is the account's rule.
                Defaults to None.
            token: Of the hub. Defaults to None, that of ``hf auth login``.
            **options: Of ``HfApi.upload_folder``, such as ``commit_message``,
                ``revision`` and ``create_pr``.

        Returns:
            The commit.
        """
        api = HfApi(token=token)
        with TemporaryDirectory() as parent:
            folder = self.save_pretrained(Path(parent, 'student'))
            name = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
            return api.upload_folder(repo_id=name, folder_path=folder, **options)

    def _or_configured(self, value: bool | None, key: str) -> bool:
        """What the caller says, or else the configuration."""
        return bool(getattr(self.config, key)) if value is None else value

    def train(self, mode: bool = True) -> Self:
        """Set the mode of what is trained; what is frozen stays in eval."""
        return super().train(mode and self.config.frozen != 'all')


class KPUModel(KPUPreTrainedModel):
    """A student behind ``AutoModel``.

    Args:
        config: The configuration.
    """

    def __init__(self, config: KPUConfig) -> None:
        super().__init__(config, out_type='features')
        self.post_init()

    def forward(
        self,
        pixel_values: Tensor,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> BaseModelOutputWithPooling | tuple[Any, ...]:
        """Features in the form of DINOv2's.

        Args:
            pixel_values: Images normalised with ImageNet's mean and standard
                deviation, (B, 3, H, W).
            output_hidden_states: Whether to give all maps, too. Defaults to
                None, as the configuration says.
            return_dict: Whether the result is no plain tuple. Defaults to
                None, as the configuration says.

        Returns:
            ``last_hidden_state`` (B, 1 + H' W', C), the summary and the map of
            stride 16, or a ViT's own, row by row; ``pooler_output`` (B, C),
            the summary; ``hidden_states``, each map (B, C, H_i, W_i).
        """
        from .models.backbones.base_backbone import POOLED

        features: Any = self.backbone.extract(pixel_values)
        summary, maps, _ = features
        m = maps[POOLED if len(maps) > 1 else 0]
        # (B, C, H, W) -> (B, H W, C), after one token (B, 1, C)
        tokens: Any = torch.cat([summary[:, None], m.flatten(2).transpose(1, 2)], 1)
        asked = self._or_configured(output_hidden_states, 'output_hidden_states')
        out = BaseModelOutputWithPooling(tokens, summary, maps if asked else None)
        return out if self._or_configured(return_dict, 'use_return_dict') else out.to_tuple()


class KPUPyramid(BackboneMixin, KPUPreTrainedModel):
    """A student behind ``AutoBackbone``, as OpenMMLab's models have it.

    The pyramid of a ``ViTBackbone`` is no part of the student: its weights
    start at random and are trained with the model around it.

    Args:
        config: The configuration.
    """

    has_attentions = False

    def __init__(self, config: KPUConfig) -> None:
        indices = tuple(i % len(config.stage_names) for i in config.out_indices)
        super().__init__(config, out_type='pyramid', out_indices=indices)
        super()._init_backbone(config)
        self.num_features = [self.backbone.embed_dims] * len(self.stage_names)
        self.post_init()

    @property
    def feature_info(self) -> Any:
        """Channels, stride and name of each map, as timm's FeatureInfo."""
        return self.backbone.feature_info

    def forward(
        self,
        pixel_values: Tensor,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        return_dict: bool | None = None,
    ) -> BackboneOutput | tuple[Any, ...]:
        """Maps as necks and heads take them.

        Args:
            pixel_values: Normalised images, (B, 3, H, W), as :class:`KPUModel` takes them.
            output_hidden_states: Give ``hidden_states``, the maps, too; None as configured.
            output_attentions: Ignored, as there are none; other backbones' callers pass it.
            return_dict: Give no plain tuple; None as configured.

        Returns:
            ``feature_maps``: for each of ``out_features`` (B, C, ceil(H / s),
            ceil(W / s)) at its stride s.
        """
        made = dict(zip(self.backbone.outputs.indices, self.backbone(pixel_values), strict=True))
        # It may have been narrowed since.
        maps = tuple(made[i % len(self.stage_names)] for i in self.out_indices)
        asked = self._or_configured(output_hidden_states, 'output_hidden_states')
        out = BackboneOutput(maps, maps if asked else None)
        return out if self._or_configured(return_dict, 'use_return_dict') else out.to_tuple()


def _arguments(config: Any) -> dict[str, Any]:
    """Those of the backbone besides the sentinel."""
    return {k: v for k, v in config.backbone.items() if k not in ('type', 'sentinel')}


AutoModel.register(KPUConfig, KPUModel, exist_ok=True)
AutoBackbone.register(KPUConfig, KPUPyramid, exist_ok=True)
