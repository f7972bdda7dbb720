# The paper's run: 8 GPUs, each with 32 images for CLIP and 4 for
# GroundingDINO.
_base_ = [
    '../_base_/models/kpu_vitb.py',
    '../_base_/datasets/imagenet21k_openimages.py',
    '../_base_/schedules/kpu_40k.py',
    '../_base_/default_runtime.py',
]
# From half of the training on the norm layers are as in inference: streams of
# 224 and of 800 pixels have different statistics. Not given in the paper.
default_hooks = dict(norm_eval=dict(type='kpu_mm.NormEvalHook'))
