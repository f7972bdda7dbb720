_base_ = ['./mask-dino_kpu-vitb_frozen-80k.py', '../../_base_/models/teachers/grounding_dino.py']
model = dict(backbone=dict(_delete_=True, **_base_.teacher_backbone))
