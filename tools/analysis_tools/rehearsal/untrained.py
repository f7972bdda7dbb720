"""Models of released architectures without their weights, or the hub."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any
from unittest import mock

import open_clip
import timm
from huggingface_hub import snapshot_download
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import AutoConfig, AutoModel

from kpu_mm.models.teachers.base_teacher import BaseTeacher
from kpu_mm.weights.hub import fetch_file, fetch_folder
from kpu_mm.weights.pretrained import load_transformers
from kpu_mm.weights.state_dict import load_state

IMAGENET = dict(image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.225])
_VIT_SIZES: dict[str, dict[str, Any]] = {
    'small': dict(hidden_size=384, num_hidden_layers=12, num_attention_heads=6),
    'base': dict(hidden_size=768, num_hidden_layers=12, num_attention_heads=12),
    'large': dict(hidden_size=1024, num_hidden_layers=24, num_attention_heads=16),
    'giant': dict(
        hidden_size=1536, num_hidden_layers=40, num_attention_heads=24, use_swiglu_ffn=True
    ),
}
_DINOV2 = dict(model_type='dinov2', image_size=518, patch_size=14)
_REGISTERS = dict(_DINOV2, model_type='dinov2_with_registers', num_register_tokens=4)
# GroundingDINO's decoders and text tower are built and thrown away: small.
_SWIN = dict(model_type='swin', out_indices=[2, 3, 4])
_BERT = dict(
    model_type='bert',
    hidden_size=32,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=64,
)
_GROUNDING_DINO = dict(
    model_type='grounding-dino', text_config=_BERT, encoder_layers=1, decoder_layers=1
)
_SWIN_B = dict(
    _SWIN,
    image_size=384,
    embed_dim=128,
    depths=[2, 2, 18, 2],
    num_heads=[4, 8, 16, 32],
    window_size=12,
)
# SAM 2.1's base plus: https://github.com/facebookresearch/sam2
_HIERA_B = dict(
    hidden_size=112,
    num_attention_heads=2,
    blocks_per_stage=[2, 3, 16, 3],
    embed_dim_per_stage=[112, 224, 448, 896],
    num_attention_heads_per_stage=[2, 4, 8, 16],
    global_attention_blocks=[12, 16, 20],
    window_positional_embedding_background_size=[14, 14],
)
ARCHITECTURES: dict[str, dict[str, Any]] = {
    **{f'facebook/dinov2-{size}': dict(_DINOV2, **vit) for size, vit in _VIT_SIZES.items()},
    **{
        f'facebook/dinov2-with-registers-{size}': dict(_REGISTERS, **vit)
        for size, vit in _VIT_SIZES.items()
    },
    'IDEA-Research/grounding-dino-tiny': dict(
        _GROUNDING_DINO, backbone_config=dict(_SWIN, window_size=7)
    ),
    'IDEA-Research/grounding-dino-base': dict(_GROUNDING_DINO, backbone_config=_SWIN_B),
    'openmmlab-community/mm_grounding_dino_base_all': dict(
        _GROUNDING_DINO, model_type='mm-grounding-dino', backbone_config=_SWIN_B
    ),
    **{
        f'facebook/dinov3-vit{size[0]}16-pretrain-lvd1689m': dict(
            _VIT_SIZES[size],
            model_type='dinov3_vit',
            intermediate_size=4 * _VIT_SIZES[size]['hidden_size'],
            patch_size=16,
            num_register_tokens=4,
        )
        for size in ('base', 'large')
    },
    'facebook/sam2.1-hiera-base-plus': dict(
        model_type='sam2_vision_model',
        backbone_config=_HIERA_B,
        backbone_channel_list=[896, 448, 224, 112],
    ),
    'Intel/dpt-large': dict(
        _VIT_SIZES['large'], model_type='dpt', intermediate_size=4096, image_size=384, patch_size=16
    ),
}


@contextmanager
def untrained() -> Iterator[None]:
    """Build models without files: their weights stay as they are created.

    A folder on this machine, or in the cache of the hub, gives its own
    architecture, without its weights.

    Raises:
        ValueError: While it is entered, for a model of the hub that is
            neither there nor among :data:`ARCHITECTURES`.
    """
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:

        def find_folder(source: str | Path, *_: Any) -> Path:
            if Path(source).expanduser().is_dir():
                return Path(source).expanduser()
            if str(source) not in ARCHITECTURES:
                with suppress(OSError, ValueError):  # not in the cache, or no name of the hub
                    return Path(snapshot_download(str(source), local_files_only=True))
                raise ValueError(
                    f"the architecture of '{source}' is not known without its files; known are "
                    f'{", ".join(ARCHITECTURES)}, models in the cache of the hub, and any folder '
                    'with a config.json.'
                )
            path = Path(folder, str(source))
            path.mkdir(parents=True, exist_ok=True)
            (path / 'config.json').write_text(json.dumps(ARCHITECTURES[str(source)]))
            (path / 'preprocessor_config.json').write_text(json.dumps(IMAGENET))
            return path

        _replace(stack, fetch_folder, find_folder)
        _replace(stack, fetch_file, lambda *_: Path(folder, 'untrained'))
        _replace(stack, load_transformers, _create)
        _replace(stack, load_state, lambda *_: {})
        for library in (open_clip, timm):
            stack.enter_context(
                mock.patch.object(library, 'create_model', _without_weights(library.create_model))
            )
        # Nobody looks at the values, and drawing them takes minutes.
        for name in dir(nn.init):
            if name.endswith('_') and not name.startswith('_'):
                stack.enter_context(mock.patch.object(nn.init, name, _as_it_is))
        stack.enter_context(mock.patch.object(BaseTeacher, 'probe', _probe_shapes))
        yield


def _as_it_is(tensor: Tensor, *_: Any, **__: Any) -> Tensor:
    return tensor


def _probe_shapes(self: BaseTeacher, *args: Any, probe: Any = BaseTeacher.probe) -> None:
    with FakeTensorMode(allow_non_fake_inputs=True):
        probe(self, *args)


def _replace(stack: ExitStack, function: Callable[..., Any], by: Callable[..., Any]) -> None:
    """Put a function in another's place wherever the package imported it."""
    for name, module in list(sys.modules.items()):
        # its own names: kpu_mm.models imports all its parts for one that it lacks
        if name.startswith('kpu_mm.') and vars(module).get(function.__name__) is function:
            stack.enter_context(mock.patch.object(module, function.__name__, by))


def _create(cls: Any, source: str | Path, may_miss: Any = (), **kwargs: Any) -> nn.Module:
    config = AutoConfig.from_pretrained(source, local_files_only=True, **kwargs)
    model: nn.Module = AutoModel.from_config(config) if cls is AutoModel else cls(config)
    return model.eval().requires_grad_(False)


def _without_weights(create: Callable[..., Any]) -> Callable[..., Any]:
    loading = ('pretrained', 'pretrained_cfg_overlay', 'require_pretrained')

    def build(name: str, **kwargs: Any) -> Any:
        model = create(name, **{k: v for k, v in kwargs.items() if k not in loading})
        if hasattr(model, 'pretrained_cfg'):  # timm's: what a caller removes from it
            model.pretrained_cfg = dict(model.pretrained_cfg, state_dict=None)
        return model

    return build
