# Nothing is trained, and configs name all weights, so that tools/test.py takes
# `none` for a checkpoint.
_base_ = './default_runtime.py'
model_wrapper_cfg = dict(_delete_=True, type='kpu_mm.Unwrapped')
custom_hooks = [dict(type='kpu_mm.ClassNamesHook')]
test_cfg = dict(type='TestLoop')
