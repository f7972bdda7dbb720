"""The README of an exported student."""

from __future__ import annotations

from typing import Any

_CARD = """\
# {title}

A vision backbone distilled with kpu_mm {version}: the frozen sentinel
`{sentinel}` with a trained ViT-Adapter. Teachers: {teachers}.
It gives a summary of {channels} channels and four maps of {channels} channels
at strides {strides}. Images are RGB in [0, 255], {min_size} pixels or more on
each side.

## Load it with kpu_mm

```python
from kpu_mm.models.backbones import load_exported
student = load_exported('PATH/OF/THIS/FOLDER')
summary, maps, _ = student.extract(student.normalise(images))
```

In a config of OpenMMLab, with the data preprocessor's mean {mean} and
std {std}:

```python
backbone = dict(
    type='kpu_mm.KPUBackbone',
    sentinel='PATH/OF/THIS/FOLDER/sentinel',{options}
    init_cfg=dict(
        type='Pretrained', checkpoint='PATH/OF/THIS/FOLDER/model.safetensors'
    ),
)
```
{program}{projectors}
## Files

* `config.json`: the backbone's arguments, where it comes from, its input and
  outputs
* `sentinel/`: the sentinel as a model of transformers, sha256 of its weights
  `{sha256}`
* `model.safetensors`: the adapter, without the sentinel
{files}
The licences of the sentinel and of the teachers apply to these weights.
"""

_PROGRAM = """
## Load it with torch alone

```python
import torch
student = torch.export.load('PATH/OF/THIS/FOLDER/student.pt2').module()
summary, maps = student(images)
```

`images` is float32 (B, 3, H, W) with any B, and with H and W multiples of 32
from 64 to 8192: only there can torch.export prove how the sizes of the maps
relate. Normalisation is inside. Written by torch {torch}; older versions may
not read it.
"""

_PROJECTORS = """
## Into a teacher's space

```python
from kpu_mm.models.projectors import load_projectors
projectors = load_projectors('PATH/OF/THIS/FOLDER')  # by teacher
```
"""


def model_card(config: dict[str, Any], with_program: bool) -> str:
    """Write the README.

    Args:
        config: The content of config.json.
        with_program: Whether ``student.pt2`` is there.

    Returns:
        Markdown.
    """
    teachers = config['teachers']
    has_projectors = any('map_channels' in t for t in teachers.values())
    files = [
        f'* `{name}`: {what}\n'
        for name, what, present in (
            (
                'projectors.safetensors',
                "from the student's space into each teacher's",
                has_projectors,
            ),
            ('student.pt2', 'all of the student for torch', with_program),
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
        sentinel=sentinel['name'],
        sha256=sentinel['sha256'],
        teachers=', '.join(teachers) or 'not recorded',
        channels=config['channels'],
        strides=', '.join(map(str, config['strides'])),
        min_size=config['input']['min_size'],
        mean=config['input']['mean'],
        std=config['input']['std'],
        options=''.join(options),
        program=(
            _PROGRAM.format(torch=config['torch_version'])
            if with_program
            else ''
        ),
        projectors=_PROJECTORS if has_projectors else '',
        files=''.join(files),
    )
