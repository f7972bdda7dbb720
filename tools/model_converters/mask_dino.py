"""Turn an official Mask DINO checkpoint into one of this package.

    python tools/model_converters/mask_dino.py CONFIG OFFICIAL.pth OUT.pth

The config is the one that OUT is for. Every weight must find its place; the
architecture that the file's shapes tell is printed, as names of official
files do not always tell it. Official:
https://github.com/IDEA-Research/MaskDINO, a detectron2 project.
"""

from __future__ import annotations

import argparse
import codecs
import pickle
import re
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from mmdet.models.backbones.swin import swin_converter
from mmengine.registry import init_default_scope
from torch import Tensor

from kpu_mm.datasets.image_table import atomic_file
from kpu_mm.registry import MODELS
from kpu_mm.utils.command_line import add_config_arguments, read_config, refuse, tool_parser
from kpu_mm.weights.checkpoint_file import NUMPY_BUILDERS
from kpu_mm.weights.state_dict import load_state

_PIXEL = 'sem_seg_head.pixel_decoder.'
_QUERY = 'sem_seg_head.predictor.'
_OURS = 'bbox_head'
_SWIN = 'backbone.patch_embed.proj.weight'

# buffers of the official criterion and preprocessing, not of the model
_IGNORED = ('criterion.empty_weight', 'pixel_mean', 'pixel_std')
# BatchNorm counters, which detectron2's frozen norms do not have
_COUNTERS = '.num_batches_tracked'
# modules that official checkpoints hold several times, and the name to keep
_ALIASES = (
    (rf'{_QUERY}(decoder\.)?bbox_embed\.\d+\.', f'{_QUERY}_bbox_embed.'),
    (rf'{_QUERY}decoder\.norm\.', f'{_QUERY}decoder_norm.'),
)
# applied one after another
_RENAMES = (
    (r'^backbone\.stem\.', 'backbone.'),
    *((rf'^backbone\.res{i + 1}\.', f'backbone.layer{i}.') for i in range(1, 5)),
    (r'\.conv(\d)\.norm\.', r'.bn\1.'),
    (r'\.shortcut\.norm\.', '.downsample.1.'),
    (r'\.shortcut\.', '.downsample.0.'),
    (r'^sem_seg_head\.pixel_decoder\.', f'{_OURS}.pixel_decoder.'),
    (r'\.transformer\.level_embed$', '.level_encoding.weight'),
    (r'\.transformer\.encoder\.', '.encoder.'),
    (r'\.input_proj\.(\d)\.0\.', r'.input_convs.\1.conv.'),
    (r'\.input_proj\.(\d)\.1\.', r'.input_convs.\1.gn.'),
    (r'\.adapter_1\.norm\.', '.lateral_conv.gn.'),
    (r'\.adapter_1\.', '.lateral_conv.conv.'),
    (r'\.layer_1\.norm\.', '.output_conv.gn.'),
    (r'\.layer_1\.', '.output_conv.conv.'),
    (r'\.mask_features\.', '.mask_feature.'),
    (r'\.encoder\.layers\.(\d+)\.norm1\.', r'.encoder.layers.\1.norms.0.'),
    (r'\.encoder\.layers\.(\d+)\.norm2\.', r'.encoder.layers.\1.norms.1.'),
    # a decoder layer attends to the queries first, with its second norm
    (r'\.decoder\.layers\.(\d+)\.norm2\.', r'.decoder.layers.\1.norms.0.'),
    (r'\.decoder\.layers\.(\d+)\.norm1\.', r'.decoder.layers.\1.norms.1.'),
    (r'\.decoder\.layers\.(\d+)\.norm3\.', r'.decoder.layers.\1.norms.2.'),
    (r'\.(decoder\.layers\.\d+\.self_attn)\.', r'.\1.attn.'),
    (r'\.linear1\.', '.ffn.layers.0.0.'),
    (r'\.linear2\.', '.ffn.layers.1.'),
    (r'^sem_seg_head\.predictor\.decoder\.', f'{_OURS}.decoder.'),
    (r'^sem_seg_head\.predictor\.', f'{_OURS}.predictor.'),
    (r'\.predictor\.enc_output\.', '.queries.memory_trans_fc.'),
    (r'\.predictor\.enc_output_norm\.', '.queries.memory_trans_norm.'),
    (r'\.predictor\.query_feat\.', '.queries.content_embedding.'),
    (r'\.predictor\.query_embed\.', '.queries.box_embedding.'),
    (r'\.predictor\.label_enc\.', '.denoising.label_embedding.'),
    (r'\.predictor\.class_embed\.', '.predictor.cls.'),
    (r'\.predictor\.mask_embed\.', '.predictor.mask.'),
    (r'\.predictor\._bbox_embed\.', '.predictor.box.'),
    (r'\.predictor\.decoder_norm\.', '.predictor.norm.'),
)

# what pickles of numpy arrays, also those of Python 2, are built from
_ALLOWED: dict[str, Any] = {
    'numpy.ndarray': np.ndarray,
    'numpy.dtype': np.dtype,
    'collections.OrderedDict': OrderedDict,
    '_codecs.encode': codecs.encode,
    **NUMPY_BUILDERS,
}


class OfficialModel(NamedTuple):
    """The architecture of an official checkpoint, read from its shapes.

    Args:
        levels: Levels that the encoder attends to.
        extra_levels: Those of them that are coarser than the backbone's.
        ffn_dims: Channels of the encoder's feed-forward networks.
        outputs: Class outputs.
    """

    levels: int
    extra_levels: int
    ffn_dims: int
    outputs: int

    def __str__(self) -> str:
        return (
            f'{self.levels} levels ({self.extra_levels} below the '
            f"backbone's), encoder FFN {self.ffn_dims}, {self.outputs} class "
            'outputs'
        )


def read_official(path: str | Path) -> dict[str, Tensor]:
    """Read the weights of an official file.

    Args:
        path: A .pth of a training, or a .pkl of numpy arrays as in the model
            zoo of detectron2.

    Returns:
        Official names to weights.

    Raises:
        FileNotFoundError: If there is no such file.
        RuntimeError: If it is corrupt, or names anything that numpy arrays
            are not built from.
        ValueError: If it holds no weights.
    """
    path = Path(path).expanduser()
    if path.suffix != '.pkl':
        return load_state(path)
    content = _read_arrays(path)
    if not isinstance(content, dict) or 'model' not in content:
        raise ValueError(f"'{path}' holds no weights under 'model'.")
    return {k: torch.as_tensor(v) for k, v in content['model'].items()}


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        found = _ALLOWED.get(f'{module}.{name}')
        if found is None:
            raise pickle.UnpicklingError(f'{module}.{name}')
        return found


def _read_arrays(path: Path) -> Any:
    """Read containers of numbers, text and numpy arrays from a pickle."""
    if not path.is_file():
        raise FileNotFoundError(f"The weights file '{path}' does not exist.")
    with path.open('rb') as file:
        try:
            # latin1: how numpy arrays of Python 2 are read
            return _ArrayUnpickler(file, encoding='latin1').load()
        # whatever a broken stream of instructions may end in
        except Exception as error:
            raise RuntimeError(
                f"'{path}' is refused: it is corrupt, or holds objects "
                f'besides numpy arrays, which could run code ({error}).'
            ) from error


def describe_official(official: Mapping[str, Tensor]) -> OfficialModel:
    """Read from a checkpoint's shapes which model it belongs to.

    The names of official files are not always right about it.

    Args:
        official: Official names to weights.

    Raises:
        ValueError: If these are not the weights of a Mask DINO.
    """
    level_embed = f'{_PIXEL}transformer.level_embed'
    ffn = f'{_PIXEL}transformer.encoder.layers.0.linear1.weight'
    classes = f'{_QUERY}class_embed.weight'
    absent = [n for n in (level_embed, ffn, classes) if n not in official]
    if absent:
        raise ValueError(f'this is no Mask DINO checkpoint: it has no {_list(absent)}.')
    levels = len(official[level_embed])
    projections = (official.get(f'{_PIXEL}input_proj.{i}.0.weight') for i in range(levels))
    return OfficialModel(
        levels,
        sum(p is not None and p.shape[-1] == 3 for p in projections),
        len(official[ffn]),
        len(official[classes]),
    )


def convert_official(
    official: Mapping[str, Tensor], model: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Rename the weights of an official checkpoint.

    Every official weight is either used, equal to another one that is used,
    or only needed in training.

    Args:
        official: Official names to weights.
        model: State dict of the detector that they are for. Only names and
            shapes are read, so it may be on the meta device.

    Returns:
        The detector's names to weights.

    Raises:
        ValueError: If official weights that should be equal are not, and if
            names or shapes do not fit the model.
    """
    renamed = {}
    for name, value in _without_aliases(official).items():
        ours, value = _rename(name, value, swin=_SWIN in official)
        renamed[ours] = (name, value)
    faults = {
        'has no place for': [name for ours, (name, _) in renamed.items() if ours not in model],
        'needs, but does not find': [
            ours for ours in model if ours not in renamed and not ours.endswith(_COUNTERS)
        ],
        'has other shapes for': [
            f'{name} {tuple(value.shape)} -> {tuple(model[ours].shape)}'
            for ours, (name, value) in renamed.items()
            if ours in model and model[ours].shape != value.shape
        ],
    }
    if any(faults.values()):
        raise ValueError(
            'the checkpoint does not fit the model, which '
            + '; '.join(f'{k} {_list(v)}' for k, v in faults.items() if v)
            + ". Choose a config of the checkpoint's architecture."
        )
    return {ours: value for ours, (_, value) in renamed.items()}


def _without_aliases(official: Mapping[str, Tensor]) -> dict[str, Tensor]:
    kept: dict[str, Tensor] = {}
    for name, value in official.items():
        if name in _IGNORED:
            continue
        one = name
        for pattern, replacement in _ALIASES:
            one = re.sub(f'^{pattern}', replacement, one)
        other = kept.setdefault(one, value)
        if other is not value and not torch.equal(other, value):
            raise ValueError(
                f'{name} and {one} should be the same weights, but differ: '
                'this checkpoint was made with other code.'
            )
    return kept


def _rename(name: str, value: Tensor, swin: bool) -> tuple[str, Tensor]:
    if swin and name.startswith('backbone.'):
        weights = {name.removeprefix('backbone.'): value}
        ((name, value),) = swin_converter(weights).items()
        return name, value
    for pattern, replacement in _RENAMES:
        name = re.sub(pattern, replacement, name)
    return name, value


def _list(names: Sequence[str], limit: int = 5) -> str:
    rest = len(names) - limit
    text = ', '.join(names[:limit])
    return f'{text} and {rest} more' if rest > 0 else text


def parse_args() -> argparse.Namespace:
    parser = tool_parser(__doc__)
    add_config_arguments(parser)
    parser.add_argument(
        'official',
        help='.pth of a training, or .pkl of numpy arrays as in the model zoo of detectron2',
    )
    parser.add_argument('out', help='file to write; must not exist yet')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    cfg = read_config(args.config, args.cfg_options)
    if 'model' not in cfg:
        refuse(f'{args.config} has no `model`.')
    if Path(args.out).exists():
        refuse(f'{args.out} exists; choose another file.')
    try:
        official = read_official(args.official)
        print(f'{args.official}: {describe_official(official)}.')
        init_default_scope(cfg.get('default_scope', 'mmengine'))
        model = MODELS.build(cfg.model)
        weights = convert_official(official, model.state_dict())
    except (OSError, RuntimeError, ValueError) as error:
        refuse(str(error))
    with atomic_file(Path(args.out)) as file:
        torch.save({'state_dict': weights, 'meta': {}}, file)
    print(
        f'{len(official)} official weights became the {len(weights)} of {args.config}: {args.out}'
    )


if __name__ == '__main__':
    main()
