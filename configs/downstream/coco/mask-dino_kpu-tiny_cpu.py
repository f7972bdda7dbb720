# A trial on a CPU: a small student with random weights and a narrow decoder,
# trained end to end on small square images: Mask DINO sees padding, so a
# canvas that never changes is learnt sooner. Its data may be any folder in the
# layout of COCO:
#   --cfg-options train_dataloader.dataset.data_root=FOLDER/
#       val_dataloader.dataset.data_root=FOLDER/
#       val_evaluator.ann_file=FOLDER/annotations/instances_val2017.json
_base_ = ['./mask-dino_kpu-vitb_frozen-80k.py', '../../_base_/models/kpu_tiny.py']

size = (160, 160)
channels = 64  # of the small student
max_iters = 600
load = [
    dict(type='LoadImageFromFile', _scope_='kpu_mm'),
    dict(type='Resize', scale=size, keep_ratio=False, backend='pillow'),
]

model = dict(
    backbone=dict(_delete_=True, frozen='none', **_base_.tiny_backbone),
    bbox_head=dict(
        pixel_decoder=dict(
            in_channels=[channels] * 4, embed_dims=channels, num_layers=2, ffn_channels=128
        ),
        queries=dict(num_queries=30),
        decoder=dict(num_layers=3, ffn_channels=128),
        denoising=dict(num_queries=30),
    ),
    train_cfg=dict(num_points=512),
)
train_dataloader = dict(
    batch_size=4,
    num_workers=1,
    dataset=dict(
        pipeline=[
            load[0],
            dict(type='kpu_mm.LoadInstances', with_bbox=True, with_mask=True, poly2mask=False),
            load[1],
            dict(type='kpu_mm.RasteriseMasks'),
            dict(type='PackDetInputs'),
        ]
    ),
)
val_dataloader = dict(
    num_workers=1,
    dataset=dict(
        pipeline=[
            *load,
            dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape')),
        ]
    ),
)
test_dataloader = val_dataloader

optim_wrapper = dict(type='OptimWrapper', optimizer=dict(lr=1e-3))
param_scheduler = dict(T_max=max_iters)
train_cfg = dict(max_iters=max_iters, val_interval=200)
default_hooks = dict(logger=dict(interval=20), checkpoint=dict(interval=100))
