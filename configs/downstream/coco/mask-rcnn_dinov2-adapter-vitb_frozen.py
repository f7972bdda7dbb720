# Mask R-CNN (https://arxiv.org/abs/1703.06870) on a frozen DINOv2 with a
# trained ViT-Adapter.
_base_ = [
    'mmdet::_base_/models/mask-rcnn_r50_fpn.py',
    'mmdet::_base_/datasets/coco_instance.py',
    '../../_base_/models/dinov2_adapter.py',
    '../../_base_/schedules/adapter_270k.py',
    '../../_base_/downstream_runtime.py',
]
default_scope = 'mmdet'

model = dict(backbone=dict(_delete_=True, **_base_.backbone), neck=dict(in_channels=[768] * 4))
train_dataloader = dict(
    batch_sampler=None,
    dataset=dict(
        pipeline=[
            dict(type='LoadImageFromFile', _scope_='kpu_mm'),
            dict(type='kpu_mm.LoadInstances', with_bbox=True, with_mask=True),
            dict(
                type='RandomChoiceResize',
                scales=[(side, 1333) for side in range(480, 801, 32)],
                keep_ratio=True,
            ),
            dict(type='RandomFlip', prob=0.5),
            dict(type='PackDetInputs'),
        ]
    ),
)
default_hooks = dict(visualization=dict(type='DetVisualizationHook'))
visualizer = dict(type='DetLocalVisualizer', name='visualizer')
