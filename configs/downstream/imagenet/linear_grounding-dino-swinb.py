# It has no summary: the mean of its coarsest map is classified, which is not
# given in the paper.
_base_ = ['./linear_kpu-vitb.py', '../../_base_/models/teachers/grounding_dino.py']
model = dict(
    backbone=dict(_delete_=True, out_type='summary', **_base_.teacher_backbone),
    head=dict(in_channels=1024),  # the coarsest map of Swin-B
)
