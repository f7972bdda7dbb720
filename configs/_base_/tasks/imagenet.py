# Classification on ImageNet-1K: one linear layer on the summary, trained with
# cross-entropy, judged by top-1 accuracy. Batch and image size are not given
# in the paper.
imagenet_model = dict(
    type='ImageClassifier',
    _scope_='mmpretrain',
    data_preprocessor=dict(
        type='mmpretrain.ClsDataPreprocessor',
        num_classes=1000,
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        to_rgb=True,
    ),
    head=dict(
        type='LinearClsHead', num_classes=1000, in_channels=768, loss=dict(type='CrossEntropyLoss')
    ),
)

imagenet_train_dataloader = dict(
    batch_size=32,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='kpu_mm.ImageNet',
        _scope_='mmpretrain',
        data_root='data/imagenet',
        split='train',
        pipeline=[
            dict(type='LoadImageFromFile', _scope_='kpu_mm'),
            dict(type='RandomResizedCrop', scale=224, backend='pillow', interpolation='bicubic'),
            dict(type='RandomFlip', prob=0.5),
            dict(type='PackInputs'),
        ],
    ),
)
imagenet_val_dataloader = dict(
    batch_size=32,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='kpu_mm.ImageNet',
        _scope_='mmpretrain',
        data_root='data/imagenet',
        split='val',
        pipeline=[
            dict(type='LoadImageFromFile', _scope_='kpu_mm'),
            dict(
                type='ResizeEdge',
                scale=256,
                edge='short',
                backend='pillow',
                interpolation='bicubic',
            ),
            dict(type='CenterCrop', crop_size=224),
            dict(type='PackInputs'),
        ],
    ),
)
imagenet_val_evaluator = dict(type='Accuracy', _scope_='mmpretrain', topk=(1, 5))
imagenet_visualizer = dict(
    type='UniversalVisualizer',
    _scope_='mmpretrain',
    name='visualizer',
    vis_backends=[dict(type='LocalVisBackend')],
)
