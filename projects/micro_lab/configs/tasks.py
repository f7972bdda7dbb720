# The paper's decoders (Mask DINO, UPerNet, a linear layer) at a small width,
# trained together on frozen features of digit scenes. To write the scenes:
#   python -m projects.micro_lab.make_digit_scenes data/digit_scenes
_base_ = [
    './_base_/digit_scenes.py',
    '../../../configs/_base_/schedules/downstream_80k.py',
    '../../../configs/_base_/downstream_runtime.py',
]

read = __import__('mmengine').Config.fromfile
student = read('{{ fileDirname }}/kpu.py').model.student.to_dict()
teachers = read('{{ fileDirname }}/kpu.py').model.teachers.to_dict()
small = read('{{ fileDirname }}/../../../configs/downstream/multitask/kpu-tiny_cpu.py')
coco, ade20k, imagenet = (
    small.model.tasks[task].to_dict() for task in ('coco', 'ade20k', 'imagenet')
)
channels = 128  # of the micro sentinel and of every pyramid
size = (64, 64)
max_iters = 800

coco['bbox_head']['num_things_classes'] = 10
coco['bbox_head']['pixel_decoder'].update(in_channels=[channels] * 4)
# A mask has only 256 cells to sample from.
coco['train_cfg'].update(num_points=128)
coco['test_cfg'] = dict(max_per_img=30)
ade20k['data_preprocessor']['size'] = size
ade20k['decode_head'].update(
    in_channels=[channels] * 4,
    num_classes=11,
    # Ten times MMSegmentation's std, because there are few iterations.
    init_cfg=dict(type='Normal', std=0.1, override=dict(name='conv_seg')),
)
ade20k['auxiliary_head'].update(in_channels=channels, num_classes=11)
imagenet['data_preprocessor']['num_classes'] = 10
imagenet['head'].update(in_channels=channels, num_classes=10)

model = dict(
    type='kpu_mm.MultiTaskModel',
    backbone=dict(frozen='all', out_type='features', **student),
    tasks=dict(detection=coco, segmentation=ade20k, classification=imagenet),
)

# Digits are not flipped, because a mirrored 2 is no digit.
image = dict(type='LoadImageFromFile', _scope_='kpu_mm')
seg_pipeline = [image, dict(type='LoadAnnotations'), dict(type='PackSegInputs')]
cls_pipeline = [image, dict(type='PackInputs')]
train_dataloader = dict(
    detection=dict(
        batch_size=8,
        dataset=dict(
            pipeline=[
                image,
                dict(type='kpu_mm.LoadInstances', with_bbox=True, with_mask=True),
                dict(type='PackDetInputs'),
            ],
            **_base_.digits_detection_train,
        ),
    ),
    segmentation=dict(
        batch_size=8, dataset=dict(pipeline=seg_pipeline, **_base_.digits_segmentation_train)
    ),
    classification=dict(
        batch_size=16,
        collate_fn=dict(type='default_collate'),
        dataset=dict(pipeline=cls_pipeline, **_base_.digits_classification_train),
    ),
)
sampler = dict(type='DefaultSampler', shuffle=False)
val_dataloader = dict(
    detection=dict(
        batch_size=8,
        sampler=sampler,
        dataset=dict(
            pipeline=[
                image,
                dict(
                    type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape')
                ),
            ],
            **_base_.digits_detection_test,
        ),
    ),
    segmentation=dict(
        batch_size=8,
        sampler=sampler,
        dataset=dict(pipeline=seg_pipeline, **_base_.digits_segmentation_test),
    ),
    classification=dict(
        batch_size=32,
        sampler=sampler,
        collate_fn=dict(type='default_collate'),
        dataset=dict(pipeline=cls_pipeline, **_base_.digits_classification_test),
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(
    detection=dict(
        type='kpu_mm.CocoMetric',
        _scope_='mmdet',
        ann_file=_base_.root + '/test/instances.json',
        metric=['bbox', 'segm'],
    ),
    segmentation=dict(type='IoUMetric', _scope_='mmseg'),
    classification=dict(type='Accuracy', _scope_='mmpretrain', topk=(1,)),
)
test_evaluator = val_evaluator

# Ten times the paper's rate for 100 times fewer iterations.
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(lr=2e-3))
param_scheduler = dict(T_max=max_iters)
train_cfg = dict(type='kpu_mm.MultiStreamTrainLoop', max_iters=max_iters, val_interval=max_iters)
val_cfg = dict(type='kpu_mm.MultiTaskValLoop')
test_cfg = dict(type='kpu_mm.MultiTaskTestLoop')
default_hooks = dict(
    logger=dict(interval=50),
    checkpoint=dict(interval=400, max_keep_ckpts=2),
    clip=dict(
        type='kpu_mm.ModuleClipHook', max_norm={'tasks.detection': 0.01, 'tasks.segmentation': 0.01}
    ),
)
del read, student, small, coco, ade20k, imagenet, image, sampler
del seg_pipeline, cls_pipeline
