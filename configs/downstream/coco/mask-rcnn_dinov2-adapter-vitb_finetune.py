# The ViT is trained too, with layer-wise learning-rate decay.
_base_ = ['./mask-rcnn_dinov2-adapter-vitb_frozen.py', '../../_base_/schedules/layer_decay.py']
model = dict(backbone=dict(frozen='none'))
optim_wrapper = dict(_base_.layer_decay)
