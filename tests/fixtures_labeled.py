"""Made-up labelled images, and tiny models that train on them.

``labeled`` is a folder with

* ``coco/``, ``ade20k/`` and ``imagenet/``: images and labels in the layout of
  the three data sets, with 3 classes each;
* ``tasks.py``: the variables of ``configs/_base_/tasks/*.py`` for them;
* ``coco.py``, ``ade20k.py``, ``imagenet.py`` and ``joint.py``: configs of
  runs of 4 iterations, one task each and all in one.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

RUNTIME = Path(__file__).parents[1] / 'configs/_base_/downstream_runtime.py'
CLASSES = ('square', 'bar', 'stripe')
SIZE = 64  # of the images, in pixels
COUNTS = dict(train=6, val=3)

TASKS = """
classes = ('square', 'bar', 'stripe')
normalisation = dict(mean=[123.675, 116.28, 103.53],
                     std=[58.395, 57.12, 57.375])

coco_model = dict(
    type='FCOS', _scope_='mmdet',
    data_preprocessor=dict(type='DetDataPreprocessor', bgr_to_rgb=True,
                           pad_size_divisor=32, **normalisation),
    neck=dict(type='ChannelMapper', in_channels=[48] * 4, out_channels=8,
              kernel_size=1, num_outs=4),
    bbox_head=dict(type='FCOSHead', num_classes=3, in_channels=8,
                   feat_channels=8, stacked_convs=1, norm_cfg=None,
                   strides=[4, 8, 16, 32],
                   regress_ranges=((-1, 16), (16, 32), (32, 64), (64, 1e8))),
    test_cfg=dict(nms_pre=50, min_bbox_size=0, score_thr=0.0,
                  nms=dict(type='nms', iou_threshold=0.5), max_per_img=5))
coco_dataset = dict(
    type='CocoDataset', _scope_='mmdet', data_root={root!r} + '/coco',
    metainfo=dict(classes=classes))
coco_train_dataloader = dict(
    batch_size=2, num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        ann_file='train.json', data_prefix=dict(img='train'),
        pipeline=[dict(type='LoadImageFromFile', _scope_='kpu_mm'),
                  dict(type='LoadAnnotations', with_bbox=True),
                  dict(type='Resize', scale=(64, 64)),
                  dict(type='RandomFlip', prob=0.5),
                  dict(type='PackDetInputs')],
        **coco_dataset))
coco_val_dataloader = dict(
    batch_size=2, num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        ann_file='val.json', data_prefix=dict(img='val'), test_mode=True,
        pipeline=[dict(type='LoadImageFromFile', _scope_='kpu_mm'),
                  dict(type='Resize', scale=(64, 64)),
                  dict(type='LoadAnnotations', with_bbox=True),
                  dict(type='PackDetInputs')],
        **coco_dataset))
coco_val_evaluator = dict(type='CocoMetric', _scope_='mmdet', metric='bbox',
                          ann_file={root!r} + '/coco/val.json')

ade20k_model = dict(
    type='EncoderDecoder', _scope_='mmseg',
    data_preprocessor=dict(type='SegDataPreProcessor', bgr_to_rgb=True,
                           size=(64, 64), pad_val=0, seg_pad_val=255,
                           **normalisation),
    decode_head=dict(type='FCNHead', in_channels=[48] * 4,
                     in_index=[0, 1, 2, 3], input_transform='resize_concat',
                     channels=8, num_convs=1, kernel_size=1,
                     concat_input=False, dropout_ratio=0.0,
                     num_classes=3, norm_cfg=None,
                     loss_decode=dict(type='CrossEntropyLoss')),
    test_cfg=dict(mode='whole'))
ade20k_dataset = dict(
    type='BaseSegDataset', _scope_='mmseg', data_root={root!r} + '/ade20k',
    img_suffix='.png', seg_map_suffix='.png', reduce_zero_label=False,
    metainfo=dict(classes=classes,
                  palette=[[255, 0, 0], [0, 255, 0], [0, 0, 255]]))
ade20k_train_dataloader = dict(
    batch_size=2, num_workers=0,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        data_prefix=dict(img_path='images/train',
                         seg_map_path='annotations/train'),
        pipeline=[dict(type='LoadImageFromFile', _scope_='kpu_mm'),
                  dict(type='LoadAnnotations'),
                  dict(type='RandomCrop', crop_size=(64, 64)),
                  dict(type='RandomFlip', prob=0.5),
                  dict(type='PhotoMetricDistortion'),
                  dict(type='PackSegInputs')],
        **ade20k_dataset))
ade20k_val_dataloader = dict(
    batch_size=1, num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        data_prefix=dict(img_path='images/val',
                         seg_map_path='annotations/val'),
        pipeline=[dict(type='LoadImageFromFile', _scope_='kpu_mm'),
                  dict(type='LoadAnnotations'),
                  dict(type='PackSegInputs')],
        **ade20k_dataset))
ade20k_val_evaluator = dict(type='IoUMetric', _scope_='mmseg',
                            iou_metrics=['mIoU'])

imagenet_model = dict(
    type='ImageClassifier', _scope_='mmpretrain',
    data_preprocessor=dict(type='ClsDataPreprocessor', num_classes=3,
                           to_rgb=True, **normalisation),
    head=dict(type='LinearClsHead', num_classes=3, in_channels=48,
              loss=dict(type='CrossEntropyLoss')))
imagenet_train_dataloader = dict(
    batch_size=2, num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='CustomDataset', _scope_='mmpretrain',
        data_root={root!r} + '/imagenet/train',
        pipeline=[dict(type='LoadImageFromFile', _scope_='kpu_mm'),
                  dict(type='RandomResizedCrop', scale=56),
                  dict(type='PackInputs')]))
imagenet_val_dataloader = dict(
    batch_size=3, num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='CustomDataset', _scope_='mmpretrain',
        data_root={root!r} + '/imagenet/val',
        pipeline=[dict(type='LoadImageFromFile', _scope_='kpu_mm'),
                  dict(type='CenterCrop', crop_size=56),
                  dict(type='PackInputs')]))
imagenet_val_evaluator = dict(type='Accuracy', _scope_='mmpretrain', topk=1)
"""

SETTINGS = """
_base_ = {runtime!r}
backbone = dict(
    type='kpu_mm.KPUBackbone', sentinel={sentinel!r}, inplanes=8,
    num_interactions=2, norm_cfg=dict(type='GN', num_groups=4))
optim_wrapper = dict(type='OptimWrapper',
                     constructor='kpu_mm.TrainableConstructor',
                     optimizer=dict(type='AdamW', lr=1e-3))
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(interval=2))
# running means would mix iterations
log_processor = dict(window_size=1)
"""

SINGLE = """
_base_ = ['./tasks.py', './settings.py']
default_scope = {scope!r}
model = dict(backbone=dict(out_type={out_type!r}, **_base_.backbone),
             **_base_.{task}_model)
train_dataloader = _base_.{task}_train_dataloader
val_dataloader = _base_.{task}_val_dataloader
val_evaluator = _base_.{task}_val_evaluator
test_dataloader = val_dataloader
test_evaluator = val_evaluator
train_cfg = dict(type='kpu_mm.ResumableTrainLoop', max_iters=4,
                 val_interval=4)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
default_hooks = dict(
    joint_checkpoint=dict(type='kpu_mm.JointCheckpointHook', task={task!r}))
"""

JOINT = """
_base_ = ['./tasks.py', './settings.py']
model = dict(
    type='kpu_mm.MultiTaskModel',
    backbone=dict(out_type='features', **_base_.backbone),
    tasks=dict(coco=_base_.coco_model,
               ade20k=_base_.ade20k_model,
               imagenet=dict(features=dict(out_type='summary'),
                             **_base_.imagenet_model)))
train_dataloader = dict(coco=_base_.coco_train_dataloader,
                        ade20k=_base_.ade20k_train_dataloader,
                        imagenet=_base_.imagenet_train_dataloader)
val_dataloader = dict(coco=_base_.coco_val_dataloader,
                      ade20k=_base_.ade20k_val_dataloader,
                      imagenet=_base_.imagenet_val_dataloader)
val_evaluator = dict(coco=_base_.coco_val_evaluator,
                     ade20k=_base_.ade20k_val_evaluator,
                     imagenet=_base_.imagenet_val_evaluator)
test_dataloader = val_dataloader
test_evaluator = val_evaluator
train_cfg = dict(type='kpu_mm.MultiStreamTrainLoop', max_iters=4,
                 val_interval=4)
default_hooks = dict(
    clip=dict(type='kpu_mm.ModuleClipHook', max_norm={'tasks.coco': 0.01}))
val_cfg = dict(type='kpu_mm.MultiTaskValLoop')
test_cfg = dict(type='kpu_mm.MultiTaskTestLoop')
"""

SINGLES = dict(
    coco=('mmdet', 'pyramid'), ade20k=('mmseg', 'pyramid'), imagenet=('mmpretrain', 'summary')
)


@pytest.fixture(scope='session')
def labeled(tmp_path_factory, dinov2_dir: Path) -> Path:
    """The folder that this module describes."""
    root = tmp_path_factory.mktemp('labeled')
    rng = np.random.default_rng(0)
    for split, count in COUNTS.items():
        scenes = [draw(rng, label % 3) for label in range(count)]
        write_coco(root / 'coco', split, scenes)
        write_ade20k(root / 'ade20k', split, scenes)
        write_imagenet(root / 'imagenet', split, scenes)
    (root / 'tasks.py').write_text(TASKS.format(root=str(root)))
    (root / 'settings.py').write_text(
        SETTINGS.format(runtime=str(RUNTIME), sentinel=str(dinov2_dir))
    )
    (root / 'joint.py').write_text(JOINT)
    for task, (scope, out_type) in SINGLES.items():
        (root / f'{task}.py').write_text(SINGLE.format(task=task, scope=scope, out_type=out_type))
    return root


def draw(rng, label):
    """A rectangle of a class's shape and colour: image, box, label."""
    height, width = ((24, 24), (40, 12), (12, 40))[label]
    x, y = rng.integers(0, SIZE - width), rng.integers(0, SIZE - height)
    image = rng.integers(0, 100, (SIZE, SIZE, 3), dtype=np.uint8)
    image[y : y + height, x : x + width, label] = 255
    return image, (int(x), int(y), width, height), label


def write_coco(root, split, scenes):
    """Images and one box with its polygon in each."""
    (root / split).mkdir(parents=True)
    images, annotations = [], []
    for i, (image, (x, y, w, h), label) in enumerate(scenes, start=1):
        Image.fromarray(image).save(root / split / f'{i}.png')
        images.append(dict(id=i, file_name=f'{i}.png', height=SIZE, width=SIZE))
        corners = [x, y, x + w, y, x + w, y + h, x, y + h]
        annotations.append(
            dict(
                id=i,
                image_id=i,
                category_id=label + 1,
                bbox=[x, y, w, h],
                segmentation=[corners],
                area=w * h,
                iscrowd=0,
            )
        )
    categories = [dict(id=i + 1, name=name) for i, name in enumerate(CLASSES)]
    (root / f'{split}.json').write_text(
        json.dumps(dict(images=images, annotations=annotations, categories=categories))
    )


def write_ade20k(root, split, scenes):
    """Images and label maps; 255 where there is no object."""
    for folder in ('images', 'annotations'):
        (root / folder / split).mkdir(parents=True)
    for i, (image, (x, y, w, h), label) in enumerate(scenes):
        Image.fromarray(image).save(root / 'images' / split / f'{i}.png')
        labels = np.full((SIZE, SIZE), 255, np.uint8)
        labels[y : y + h, x : x + w] = label
        Image.fromarray(labels).save(root / 'annotations' / split / f'{i}.png')


def write_imagenet(root, split, scenes):
    """Images in one folder for each class."""
    for i, (image, _, label) in enumerate(scenes):
        folder = root / split / f'n{label}'
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f'{i}.png')
