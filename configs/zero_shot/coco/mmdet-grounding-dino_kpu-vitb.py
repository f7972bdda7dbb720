# The student before MMDetection's GroundingDINO, whose own image backbone's
# weights are left in its checkpoint. For MM-GroundingDINO take its config as
# a base in the same way, with a student of MM-GroundingDINO.
_base_ = [
    'mmdet::grounding_dino/grounding_dino_swin-b_pretrain_mixeddata.py',
    '../../_base_/models/zero_shot.py',
]
model = dict(
    backbone=dict(_delete_=True, teacher='grounding_dino', **_base_.student),
    encoder=dict(num_cp=0),  # no recomputation, which needs fairscale
)
load_from = 'https://download.openmmlab.com/mmdetection/v3.0/grounding_dino/groundingdino_swinb_cogcoor_mmdet-55949c9c.pth'
