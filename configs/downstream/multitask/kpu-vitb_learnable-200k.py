_base_ = './kpu-vitb_frozen-80k.py'
model = dict(backbone=dict(frozen='sentinel'))
train_cfg = dict(max_iters=200_000)
param_scheduler = dict(T_max=200_000)
default_hooks = dict(clip=dict(max_norm={'backbone': 0.01}))
