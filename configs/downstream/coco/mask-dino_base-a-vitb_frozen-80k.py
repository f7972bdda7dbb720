_base_ = ['./mask-dino_kpu-vitb_frozen-80k.py', '../../_base_/models/base_a.py']
model = dict(backbone=dict(_delete_=True, **_base_.base_a_backbone))
