# All learns, end to end: the sentinel too, with layer-wise learning-rate decay.
# The paper does not say which of its parts are its "learnable features".
_base_ = ['./kpu-vitb_learnable-200k.py', '../../_base_/schedules/layer_decay.py']
model = dict(backbone=dict(frozen='none'))
optim_wrapper = dict(_base_.layer_decay)
