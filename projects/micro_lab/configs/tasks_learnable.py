# The adapter is trained together with the decoders.
_base_ = './tasks.py'
model = dict(backbone=dict(frozen='sentinel'))
default_hooks = dict(clip=dict(max_norm={'backbone': 0.01}))
