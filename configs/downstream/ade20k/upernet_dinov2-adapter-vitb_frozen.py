# UPerNet on a frozen DINOv2 with a trained ViT-Adapter, without distillation:
# 160K steps, as MMSegmentation trains on ADE20K.
_base_ = './upernet_kpu-vitb_frozen-80k.py'
model = dict(backbone=dict(frozen='sentinel', drop_path_rate=0.3, init_cfg=None))
optim_wrapper = dict(optimizer=dict(lr=1e-4))
param_scheduler = dict(T_max=160_000)
train_cfg = dict(max_iters=160_000)
