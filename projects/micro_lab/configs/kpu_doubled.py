# Twice the iterations.
_base_ = './kpu.py'
max_iters = 2 * _base_.max_iters
param_scheduler = dict(T_max=max_iters)
train_cfg = dict(max_iters=max_iters)
default_hooks = dict(checkpoint=dict(interval=max_iters // 2))
