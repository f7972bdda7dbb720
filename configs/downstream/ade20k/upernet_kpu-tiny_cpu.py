# A trial on a CPU: a small student with random weights, trained end to end on
# whole images. Its data may be any folder in the layout of ADE20K:
#   --cfg-options train_dataloader.dataset.data_root=FOLDER
#       val_dataloader.dataset.data_root=FOLDER
_base_ = ['./upernet_kpu-vitb_frozen-80k.py', '../../_base_/models/kpu_tiny.py']

size = (112, 112)
channels = 64  # of the small student
max_iters = 800
load = [
    dict(type='LoadImageFromFile', _scope_='kpu_mm'),
    dict(type='Resize', scale=size, keep_ratio=False),
]

model = dict(
    data_preprocessor=dict(size=size),
    backbone=dict(_delete_=True, frozen='none', **_base_.tiny_backbone),
    decode_head=dict(
        in_channels=[channels] * 4,
        channels=channels,
        dropout_ratio=0.0,
        norm_cfg=dict(_delete_=True, type='GN', num_groups=8),
    ),
    auxiliary_head=dict(
        in_channels=channels,
        channels=channels,
        dropout_ratio=0.0,
        norm_cfg=dict(_delete_=True, type='GN', num_groups=8),
    ),
    test_cfg=dict(_delete_=True, mode='whole'),
)
train_dataloader = dict(
    batch_size=2,
    num_workers=1,
    dataset=dict(
        pipeline=[
            load[0],
            dict(type='kpu_mm.CheckLabelMap'),
            dict(type='LoadAnnotations'),
            load[1],
            dict(type='RandomFlip', prob=0.5),
            dict(type='PackSegInputs'),
        ]
    ),
)
val_dataloader = dict(
    num_workers=1,
    dataset=dict(
        pipeline=[
            *load,
            dict(type='kpu_mm.CheckLabelMap'),
            dict(type='LoadAnnotations'),
            dict(type='PackSegInputs'),
        ]
    ),
)
test_dataloader = val_dataloader

optim_wrapper = dict(type='OptimWrapper', optimizer=dict(lr=1e-3))
param_scheduler = dict(T_max=max_iters)
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
default_hooks = dict(logger=dict(interval=20), checkpoint=dict(interval=max_iters))
