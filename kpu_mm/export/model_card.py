"""The README of an exported student."""

from __future__ import annotations

from typing import Any

from .onnx_graph import OPSET

_CARD = """\
# {title}

A vision backbone distilled with kpu_mm {version} over the sentinel
`{sentinel}`. Teachers: {teachers}.
It gives a summary of {channels} channels and maps of {channels} channels at
strides {strides}. Images are RGB in [0, 255], {min_size} pixels or more on
each side.

## Load it with kpu_mm

```python
from kpu_mm.models.backbones import load_exported
student = load_exported('PATH/OF/THIS/FOLDER')
summary, maps, _ = student.encode(images)
```

In a config of OpenMMLab, with the data preprocessor's mean {mean} and
std {std}:

```python
backbone = dict(
    type='{type}',
    sentinel='PATH/OF/THIS/FOLDER/sentinel',{options}
    init_cfg=dict(
        type='Pretrained', checkpoint='PATH/OF/THIS/FOLDER/model.safetensors'
    ),
)
```
{graphs}{projectors}
## Files

* `config.json`: the backbone's arguments, where it comes from, its input and
  outputs
* `sentinel/`: the sentinel as a model of transformers, sha256 of its weights
  `{sha256}`
* `model.safetensors`: what it has besides the sentinel
{files}
The licences of the sentinel and of the teachers apply to these weights.
"""

_PROGRAM = """
## Load it with torch alone

```python
import torch
student = torch.export.load('PATH/OF/THIS/FOLDER/student.pt2').module()
outputs = student(images)
```

Sides from 33 pixels. Written by torch {torch}; older versions may not read it.
"""

_ONNX = """
## Load it with onnxruntime

```python
import onnxruntime
student = onnxruntime.InferenceSession('PATH/OF/THIS/FOLDER/student.onnx')
names = [output.name for output in student.get_outputs()]
outputs = dict(zip(names, student.run(names, {{'images': images}})))
```

Operator set {opset}. Written by torch {torch}.
"""

_GRAPHS = """
## Graphs

Input: `images`, float32 (B, 3, H, W), RGB in [0, 255], any B, H and W from
{min_size}; normalisation is inside. Outputs by name, with their channels:
{outputs}.

`summary` is (B, C), `map_s` (B, C, ceil(H / s), ceil(W / s)); `NAME_summary`
and `NAME_map_i` are what teacher NAME would give, maps on its own grid.

Compared with PyTorch on images of {sizes}; largest difference over the largest
value of the output: {differences}.
"""

_PROJECTORS = """
## Into a teacher's space

```python
from kpu_mm.models.student import load_student
student = load_student('PATH/OF/THIS/FOLDER')
features = student.backbone.encode(images)
summary, maps, _ = student.link('{teacher}').infer(features, images.shape[-2:])
```
"""


def model_card(config: dict[str, Any]) -> str:
    """Write the README.

    Args:
        config: The content of config.json.

    Returns:
        Markdown.
    """
    teachers = config['teachers']
    graphs = config.get('graphs', {})
    differences = graphs.get('largest_differences', {})
    projected = [n for n, t in teachers.items() if 'map_channels' in t]
    files = [
        f'* `{name}`: {what}\n'
        for name, what, present in (
            (
                'projectors.safetensors',
                "from the student's space into each teacher's",
                bool(projected),
            ),
            (
                'student.onnx',
                'all of the student for ONNX runtimes; where it exceeds '
                'one file of ONNX, with its weights in `student.onnx.data`',
                'student.onnx' in differences,
            ),
            (
                'student.pt2',
                'all of the student for torch',
                'student.pt2' in differences,
            ),
        )
        if present
    ]
    options = [
        f'\n    {key}={value!r},'
        for key, value in config['backbone'].items()
        if key not in ('type', 'sentinel')
    ]
    sentinel = config['sentinel']
    return _CARD.format(
        title=f'Student of {", ".join(teachers) or sentinel["name"]}',
        version=config['kpu_mm_version'],
        type=config['backbone']['type'],
        sentinel=sentinel['name'],
        sha256=sentinel['sha256'],
        teachers=', '.join(teachers) or 'not recorded',
        channels=config['channels'],
        strides=', '.join(map(str, config['strides'])),
        min_size=config['input']['min_size'],
        mean=config['input']['mean'],
        std=config['input']['std'],
        options=''.join(options),
        graphs=_describe(graphs, config) if graphs else '',
        projectors=_PROJECTORS.format(teacher=projected[0])
        if projected
        else '',
        files=''.join(files),
    )


def _describe(graphs: dict[str, Any], config: dict[str, Any]) -> str:
    differences = graphs['largest_differences']
    torch = config['torch_version']
    parts = [
        _GRAPHS.format(
            min_size=config['input']['min_size'],
            outputs=', '.join(
                f'`{name}` {channels}'
                for name, channels in graphs['outputs'].items()
            ),
            sizes=', '.join(
                f'{b} x 3 x {h} x {w}' for b, h, w in graphs['compared_on']
            ),
            differences=', '.join(
                f'`{name}` {value:.1e}' for name, value in differences.items()
            ),
        )
    ]
    if 'student.onnx' in differences:
        parts.append(_ONNX.format(opset=OPSET, torch=torch))
    if 'student.pt2' in differences:
        parts.append(_PROGRAM.format(torch=torch))
    return ''.join(parts)
