# Semantic segmentation on ADE20K: UPerNet and an auxiliary FCN
# (https://arxiv.org/abs/1807.10221). The decoder is the paper's; what
# MMSegmentation's own ADE20K configs have in common is taken from them, as
# the paper gives no further numbers.
crop_size = (512, 512)
norm_cfg = dict(type='SyncBN')

ade20k_model = dict(
    type='EncoderDecoder',
    _scope_='mmseg',
    data_preprocessor=dict(
        type='SegDataPreProcessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        size=crop_size,
        pad_val=0,
        seg_pad_val=255,
    ),
    decode_head=dict(
        type='UPerHead',
        in_channels=[768, 768, 768, 768],
        in_index=[0, 1, 2, 3],
        pool_scales=(1, 2, 3, 6),
        channels=512,
        dropout_ratio=0.1,
        num_classes=150,
        norm_cfg=norm_cfg,
        align_corners=False,
        loss_decode=dict(type='CrossEntropyLoss', loss_weight=1.0),
    ),
    auxiliary_head=dict(
        type='FCNHead',
        in_channels=768,
        in_index=2,
        channels=256,
        num_convs=1,
        concat_input=False,
        dropout_ratio=0.1,
        num_classes=150,
        norm_cfg=norm_cfg,
        align_corners=False,
        loss_decode=dict(type='CrossEntropyLoss', loss_weight=0.4),
    ),
    # windows of the training size, as ViT-Adapter tests
    test_cfg=dict(mode='slide', crop_size=crop_size, stride=(341, 341)),
)

ade20k_train_dataloader = dict(
    batch_size=2,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        type='ADE20KDataset',
        _scope_='mmseg',
        data_root='data/ade/ADEChallengeData2016',
        data_prefix=dict(img_path='images/training', seg_map_path='annotations/training'),
        pipeline=[
            dict(type='LoadImageFromFile', _scope_='kpu_mm'),
            dict(type='kpu_mm.CheckLabelMap'),
            dict(type='LoadAnnotations'),
            dict(type='RandomResize', scale=(2048, 512), ratio_range=(0.5, 2.0), keep_ratio=True),
            dict(type='RandomCrop', crop_size=crop_size, cat_max_ratio=0.75),
            dict(type='RandomFlip', prob=0.5),
            dict(type='PhotoMetricDistortion'),
            dict(type='PackSegInputs'),
        ],
    ),
)
ade20k_val_dataloader = dict(
    batch_size=1,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='ADE20KDataset',
        _scope_='mmseg',
        data_root='data/ade/ADEChallengeData2016',
        data_prefix=dict(img_path='images/validation', seg_map_path='annotations/validation'),
        pipeline=[
            dict(type='LoadImageFromFile', _scope_='kpu_mm'),
            dict(type='Resize', scale=(2048, 512), keep_ratio=True),
            # after Resize: the prediction is resized to the labels
            dict(type='kpu_mm.CheckLabelMap'),
            dict(type='LoadAnnotations'),
            dict(type='PackSegInputs'),
        ],
    ),
)
ade20k_val_evaluator = dict(type='IoUMetric', _scope_='mmseg', iou_metrics=['mIoU'])
ade20k_visualizer = dict(
    type='SegLocalVisualizer',
    _scope_='mmseg',
    name='visualizer',
    vis_backends=[dict(type='LocalVisBackend')],
)
del crop_size, norm_cfg
