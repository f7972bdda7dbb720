"""The README of an exported student."""

from __future__ import annotations

from typing import Any

from .graphs import MIN_SIDE, OPSET

_STUDENT = """\
---
library_name: transformers
pipeline_tag: image-feature-extraction
tags: [vision, backbone, distillation, kpu_mm]
---

# {title}

A vision backbone distilled with kpu_mm {version} over the sentinel
`{sentinel}`. Teachers: {teachers}.
It gives a summary of {channels} channels and maps of {channels} channels at
strides {strides}. Images are RGB in [0, 255], {min_size} pixels or more on
each side.

* `config.json`: the backbone's arguments, where it comes from, its input and
  outputs
* `sentinel/`: the sentinel as its library saves it, sha256 of its weights
  `{sha256}`
* `model.safetensors`: the weights besides the sentinel
* `preprocessor_config.json`: the image processor for transformers

The licences of the sentinel and of the teachers apply to these weights.

## Load it with kpu_mm

```python
from kpu_mm.models.backbones import load_exported
student = load_exported('PATH/OF/THIS/FOLDER')
summary, maps, _ = student.encode(images)
```

With transformers, as a model or as `backbone_config` of a larger one:

```python
import kpu_mm
from transformers import AutoBackbone, AutoModel
model = AutoModel.from_pretrained('PATH/OF/THIS/FOLDER')
backbone = AutoBackbone.from_pretrained('PATH/OF/THIS/FOLDER')
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
"""

_GRAPHS = """
## Graphs

Input: `images`, float32 (B, 3, H, W), RGB in [0, 255], any B, H and W from
{min_size}; normalisation is inside. Outputs by name, with their channels:
{outputs}.

`summary` is (B, C), `map_s` (B, C, ceil(H / s), ceil(W / s)); `NAME_summary`
and `NAME_map_i` predict the features of teacher NAME, maps on its own grid.

Compared with PyTorch on images of {sizes}; largest difference over the largest
value of the output: {differences}. Written by torch {torch}.
"""

_ONNX = """
`student.onnx`, operator set {opset}, with its weights in `student.onnx.data`
where they exceed one file of ONNX:

```python
import onnxruntime
student = onnxruntime.InferenceSession('PATH/OF/THIS/FOLDER/student.onnx')
names = [output.name for output in student.get_outputs()]
outputs = dict(zip(names, student.run(names, {{'images': images}})))
```
"""

_PROGRAM = """
`student.pt2`, for sides from {min_side} pixels; older versions of torch may
not read it:

```python
import torch
program = torch.export.load('PATH/OF/THIS/FOLDER/student.pt2')
outputs = program.module()(images)
```

It was traced on the CPU. For a GPU, move the program before `module()`:

```python
from torch.export.passes import move_to_device_pass
program = move_to_device_pass(program, 'cuda')
```
"""

_PROJECTORS = """
## Into a teacher's space

`projectors.safetensors` leads from the student's space into each teacher's:

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
    teachers, sentinel = config['teachers'], config['sentinel']
    options = [
        f'\n    {key}={value!r},'
        for key, value in config['backbone'].items()
        # A detector takes maps, whatever the run that trained them took.
        if key not in ('type', 'sentinel', 'out_type')
    ]
    values = dict(
        title=f'Student of {", ".join(teachers) or sentinel["name"]}',
        version=config['kpu_mm_version'],
        type=config['backbone']['type'],
        sentinel=sentinel['name'],
        sha256=sentinel['sha256'],
        teachers=', '.join(teachers) or 'not recorded',
        channels=config['channels'],
        strides=', '.join(map(str, config['strides'])),
        options=''.join(options),
    )
    # config['input'] has a key 'channels' too, the order of the colours.
    card = _STUDENT.format_map(config['input'] | values)
    if 'graphs' in config:
        card += _describe_graphs(config)
    # A teacher without a projector has no channels in config.json.
    projected = [n for n, t in teachers.items() if 'map_channels' in t]
    if projected:
        card += _PROJECTORS.format(teacher=projected[0])
    return card


def _describe_graphs(config: dict[str, Any]) -> str:
    graphs = config['graphs']
    differences = graphs['largest_differences']
    card = _GRAPHS
    if 'student.onnx' in differences:
        card += _ONNX
    if 'student.pt2' in differences:
        card += _PROGRAM
    outputs = [f'`{name}` {c}' for name, c in graphs['outputs'].items()]
    sizes = [f'{b} x 3 x {h} x {w}' for b, h, w in graphs['compared_on']]
    errors = [f'`{name}` {value:.1e}' for name, value in differences.items()]
    return card.format(
        min_size=config['input']['min_size'],
        min_side=MIN_SIDE,
        opset=OPSET,
        torch=config['torch_version'],
        outputs=', '.join(outputs),
        sizes=', '.join(sizes),
        differences=', '.join(errors),
    )
