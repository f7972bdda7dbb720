# KPU with the micro teachers; the other configs of this folder that distil
# differ from it as those of configs/distill differ from kpu_vitb.py.
_base_ = './kpu_demo.py'
custom_hooks = [
    dict(type='kpu_mm.NonFiniteHook'),
    dict(type='kpu_mm.SkippedImagesHook'),
]
