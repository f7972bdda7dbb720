# Semantic segmentation with Mask DINO. Its code gives queries, classes,
# schedule and batch size; data and augmentation are those of Mask2Former on
# ADE20K.
_base_ = [
    '../../_base_/models/resnet50.py',
    '../../_base_/tasks/coco.py',
    '../../_base_/schedules/mask_dino_50e.py',
    '../../_base_/downstream_runtime.py',
]
default_scope = 'mmdet'
crop_size = (512, 512)

model = dict(backbone=_base_.backbone, **_base_.coco_model)
head = model['bbox_head']
head.update(num_things_classes=0, num_stuff_classes=150)
head['queries'] = dict(type='kpu_mm.LearnedQueries', num_queries=100)
head['classes'] = dict(type='kpu_mm.SoftmaxClasses', background_weight=0.1)
head['pixel_decoder'].update(
    in_channels=[256, 512, 1024, 2048], extra_level=False, order='coarse_to_fine', ffn_channels=1024
)
model['test_cfg'] = dict(instance_on=False, semantic_on=True)
del head

train_dataloader = dict(
    batch_size=2,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        type='kpu_mm.ADE20KSegDataset',
        data_root='data/ade/ADEChallengeData2016',
        data_prefix=dict(img_path='images/training', seg_map_path='annotations/training'),
        pipeline=[
            dict(type='LoadImageFromFile', _scope_='kpu_mm'),
            dict(type='kpu_mm.CheckLabelMap'),
            dict(type='LoadAnnotations', with_bbox=False, with_seg=True, reduce_zero_label=True),
            dict(
                type='RandomChoiceResize',
                scales=[int(512 * x * 0.1) for x in range(5, 21)],
                resize_type='ResizeShortestEdge',
                max_size=2048,
            ),
            dict(type='RandomCrop', crop_size=crop_size),
            dict(type='PhotoMetricDistortion'),
            dict(type='RandomFlip', prob=0.5),
            dict(type='Pad', size=crop_size, pad_val=dict(img=(128, 128, 128), seg=255)),
            dict(type='PackDetInputs'),
        ],
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='kpu_mm.ADE20KSegDataset',
        data_root='data/ade/ADEChallengeData2016',
        data_prefix=dict(img_path='images/validation', seg_map_path='annotations/validation'),
        test_mode=True,
        pipeline=[
            dict(type='LoadImageFromFile', _scope_='kpu_mm'),
            dict(type='Resize', scale=(2048, 512), keep_ratio=True),
            # after Resize: the prediction has the size of the labels
            dict(type='kpu_mm.CheckLabelMap'),
            dict(type='LoadAnnotations', with_bbox=False, with_seg=True, reduce_zero_label=True),
            dict(type='PackDetInputs', meta_keys=('img_path', 'ori_shape', 'img_shape')),
        ],
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='SemSegMetric', iou_metrics=['mIoU'])
test_evaluator = val_evaluator

optim_wrapper = dict(type='OptimWrapper')  # float32, as published
param_scheduler = dict(milestones=[135_000, 150_000])
train_cfg = dict(max_iters=160_000)
