# The adapter learns together with the decoders.
_base_ = './tasks.py'
model = dict(backbone=dict(frozen='sentinel'))
