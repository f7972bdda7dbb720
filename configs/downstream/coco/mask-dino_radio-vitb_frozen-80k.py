_base_ = ['./mask-dino_kpu-vitb_frozen-80k.py', '../../_base_/models/teachers/radio.py']
model = dict(backbone=dict(_delete_=True, **_base_.teacher_backbone))
