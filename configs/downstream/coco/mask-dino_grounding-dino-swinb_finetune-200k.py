# GroundingDINO's image encoder learns too, at a tenth of the rate, as Mask DINO
# trains its backbones; steps are those of learnable features. Rate and steps
# are not given in the paper.
_base_ = './mask-dino_grounding-dino-swinb_frozen-80k.py'
model = dict(backbone=dict(frozen=False))
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'backbone.tuned': dict(lr_mult=0.1)}))
train_cfg = dict(max_iters=200_000)
param_scheduler = dict(T_max=200_000)
