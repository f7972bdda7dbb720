# A trial on a CPU: a linear probe of a small student with random weights. Its
# data are folders of images, one for each of ten classes, below train/ and
# val/:
#   --cfg-options train_dataloader.dataset.data_root=FOLDER
#       val_dataloader.dataset.data_root=FOLDER
_base_ = [
    './linear_kpu-vitb.py',
    '../../_base_/models/kpu_tiny.py',
    '../../_base_/datasets/small_folders.py',
]

max_iters = 300

model = dict(
    backbone=dict(_delete_=True, frozen='all', out_type='summary', **_base_.tiny_backbone),
    head=dict(num_classes=10, in_channels=64),
    data_preprocessor=dict(num_classes=10),
)
train_dataloader = dict(num_workers=1, dataset=dict(_delete_=True, **_base_.small_train))
val_dataloader = dict(num_workers=1, dataset=dict(_delete_=True, **_base_.small_val))
test_dataloader = val_dataloader

optim_wrapper = dict(type='OptimWrapper', optimizer=dict(lr=1e-2))
param_scheduler = dict(T_max=max_iters)
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
default_hooks = dict(logger=dict(interval=20), checkpoint=dict(interval=max_iters))
