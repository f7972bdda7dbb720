# Decoder and adapter learn; the sentinel, a DINOv2 ViT, stays frozen.
_base_ = './mask-dino_kpu-vitb_frozen-80k.py'
# Norm layers keep the statistics of the distillation, as those of OpenMMLab's
# ResNets in detection keep ImageNet's; not given in the paper.
model = dict(backbone=dict(frozen='sentinel', norm_eval=True))
train_cfg = dict(max_iters=200_000)
param_scheduler = dict(T_max=200_000)
