# About 15 M unlabelled images. The share of each source is not given in the
# paper: a random image comes from ImageNet-21K in 13 of 15 cases.
sources = [
    dict(type='kpu_mm.FolderSource', root='data/imagenet21k/train'),
    dict(type='kpu_mm.FolderSource', root='data/openimages/train'),
]
weights = [13, 2]

train_dataloader = dict(
    clip=dict(
        batch_size=32,
        num_workers=8,
        dataset=dict(
            type='kpu_mm.UnlabeledImages',
            sources=sources,
            weights=weights,
            pipeline=[
                dict(type='kpu_mm.DecodeRandomResizedCrop', size=224),
                dict(type='mmcv.RandomFlip', prob=0.5),
                dict(type='kpu_mm.PackImage'),
            ],
        ),
    ),
    grounding_dino=dict(
        batch_size=4,
        num_workers=4,
        dataset=dict(
            type='kpu_mm.UnlabeledImages',
            sources=sources,
            weights=weights,
            # Images of a batch have similar shapes: 3 % padding in place of
            # 28 % for COCO's images; not given in the paper.
            group_size=4,
            pipeline=[
                dict(type='kpu_mm.DecodeResize', shortest=800, longest=1333),
                dict(type='mmcv.RandomFlip', prob=0.5),
                dict(type='kpu_mm.PackImage'),
            ],
        ),
    ),
)
