# The paper's run: 8 GPUs, each with 32 images for CLIP and 4 for
# GroundingDINO.
_base_ = [
    '../_base_/models/kpu_vitb.py',
    '../_base_/datasets/imagenet21k_openimages.py',
    '../_base_/schedules/kpu_40k.py',
    '../_base_/default_runtime.py',
]
