_base_ = './mask-dino_r50_4s_50e.py'
image_size = (1024, 1024)
data_root = 'data/coco/'

model = dict(
    bbox_head=dict(num_stuff_classes=53, queries=dict(box_init='no')),
    test_cfg=dict(panoptic_on=True, object_mask_thr=0.25, iou_thr=0.8),
)
train_dataloader = dict(
    dataset=dict(
        type='CocoPanopticDataset',
        ann_file='annotations/panoptic_train2017.json',
        data_prefix=dict(seg='annotations/panoptic_train2017/'),
        # images without things count, too
        filter_cfg=None,
        pipeline=[
            dict(type='LoadImageFromFile', _scope_='kpu_mm'),
            dict(type='LoadPanopticAnnotations'),
            dict(type='RandomFlip', prob=0.5),
            # large-scale jittering; Pillow would refuse the segment numbers
            dict(
                type='RandomResize',
                scale=image_size,
                ratio_range=(0.1, 2.0),
                resize_type='Resize',
                keep_ratio=True,
            ),
            dict(
                type='kpu_mm.DiagonalCrop',
                crop_size=image_size,
                recompute_bbox=True,
                allow_negative_crop=True,
            ),
            dict(type='Pad', size=image_size, pad_val=dict(img=(128, 128, 128), masks=0, seg=255)),
            # It drops things that were cut off, but with keep_empty=False no image.
            dict(
                type='FilterAnnotations',
                min_gt_bbox_wh=(1e-5, 1e-5),
                by_mask=True,
                keep_empty=False,
            ),
            dict(type='PackDetInputs'),
        ],
    )
)
val_dataloader = dict(
    dataset=dict(
        type='CocoPanopticDataset',
        ann_file='annotations/panoptic_val2017.json',
        data_prefix=dict(seg='annotations/panoptic_val2017/'),
    )
)
test_dataloader = val_dataloader
val_evaluator = [
    dict(
        type='mmdet.CocoPanopticMetric',
        ann_file=data_root + 'annotations/panoptic_val2017.json',
        seg_prefix=data_root + 'annotations/panoptic_val2017/',
    ),
    dict(
        type='mmdet.CocoMetric',
        ann_file=data_root + 'annotations/instances_val2017.json',
        metric=['bbox', 'segm'],
    ),
]
test_evaluator = val_evaluator
