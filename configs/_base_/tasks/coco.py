# Detection and instance segmentation on COCO: Mask DINO
# (https://arxiv.org/abs/2206.02777), its best published R50 variant of four
# scales. The decoder is the paper's; numbers are Mask DINO's, as the paper
# gives none.
image_size = (1024, 1024)

coco_model = dict(
    type='kpu_mm.MaskDINO',
    _scope_='mmdet',
    data_preprocessor=dict(
        type='DetDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_size_divisor=32,
        non_blocking=True,
    ),
    bbox_head=dict(
        type='kpu_mm.MaskDINOHead',
        num_things_classes=80,
        num_stuff_classes=0,
        pixel_decoder=dict(
            type='kpu_mm.MaskDINOPixelDecoder',
            in_channels=[768, 768, 768, 768],
            embed_dims=256,
            input_levels=3,
            extra_level=True,
            order='fine_to_coarse',
            num_layers=6,
            ffn_channels=2048,
        ),
        queries=dict(type='kpu_mm.SelectedQueries', num_queries=300, box_init='mask2box'),
        decoder=dict(num_layers=9, ffn_channels=2048),
        denoising=dict(num_queries=100, noise_scale=0.4),
    ),
    train_cfg=dict(
        weights=dict(cls=4.0, bbox=5.0, iou=2.0, mask=5.0, dice=5.0),
        num_points=12544,
        oversample_ratio=3.0,
        importance_sample_ratio=0.75,
    ),
    test_cfg=dict(max_per_img=100),
)

coco_train_dataloader = dict(
    batch_size=2,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        type='kpu_mm.CocoDataset',
        _scope_='mmdet',
        data_root='data/coco/',
        ann_file='annotations/instances_train2017.json',
        data_prefix=dict(img='train2017/'),
        filter_cfg=dict(filter_empty_gt=True),
        pipeline=[
            # kpu_mm's, by the name that MMDetection's Inferencer looks for
            dict(type='LoadImageFromFile', _scope_='kpu_mm'),
            dict(type='kpu_mm.LoadInstances', with_bbox=True, with_mask=True, poly2mask=False),
            dict(type='RandomFlip', prob=0.5),
            # large-scale jittering
            dict(
                type='RandomResize',
                scale=image_size,
                ratio_range=(0.1, 2.0),
                resize_type='Resize',
                keep_ratio=True,
                backend='pillow',
            ),
            dict(
                type='kpu_mm.DiagonalCrop',
                crop_size=image_size,
                recompute_bbox=True,
                allow_negative_crop=True,
            ),
            dict(type='Pad', size=image_size, pad_val=dict(img=(128, 128, 128), masks=0)),
            dict(type='kpu_mm.RasteriseMasks'),
            # A crop may be left without objects.
            dict(
                type='FilterAnnotations',
                min_gt_bbox_wh=(1e-5, 1e-5),
                by_mask=True,
                keep_empty=False,
            ),
            dict(type='PackDetInputs'),
        ],
    ),
)
coco_val_dataloader = dict(
    batch_size=1,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='kpu_mm.CocoDataset',
        _scope_='mmdet',
        data_root='data/coco/',
        ann_file='annotations/instances_val2017.json',
        data_prefix=dict(img='val2017/'),
        test_mode=True,
        pipeline=[
            dict(type='LoadImageFromFile', _scope_='kpu_mm'),
            dict(type='Resize', scale=(1333, 800), keep_ratio=True, backend='pillow'),
            dict(
                type='PackDetInputs',
                meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
            ),
        ],
    ),
)
coco_val_evaluator = dict(
    type='kpu_mm.CocoMetric',
    _scope_='mmdet',
    ann_file='data/coco/annotations/instances_val2017.json',
    metric=['bbox', 'segm'],
)
coco_visualizer = dict(
    type='DetLocalVisualizer',
    _scope_='mmdet',
    name='visualizer',
    vis_backends=[dict(type='LocalVisBackend')],
)
del image_size
