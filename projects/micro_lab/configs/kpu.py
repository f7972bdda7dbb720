# KPU with the micro teachers. The other configs for distillation in this
# folder differ from it as those of configs/distill differ from kpu_vitb.py.
_base_ = './kpu_demo.py'
custom_hooks = [dict(type='kpu_mm.NonFiniteHook'), dict(type='kpu_mm.SkippedImagesHook')]
