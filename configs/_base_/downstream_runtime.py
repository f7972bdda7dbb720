# What all downstream runs share; each sets its own `default_scope`.
_base_ = './default_runtime.py'
# What computes in float32, such as Mask DINO's decoders, does so in TF32, as
# was torch's default when they were published.
env_cfg = dict(tf32=True)
custom_hooks = [
    dict(type='kpu_mm.NonFiniteHook'),
    dict(type='kpu_mm.ClassNamesHook'),
    dict(type='kpu_mm.BackboneCheckHook'),
    dict(type='kpu_mm.LabelMapHook'),
]
# metrics at the iteration they are of
default_hooks = dict(logger=dict(log_metric_by_epoch=False))
