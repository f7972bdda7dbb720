_base_ = ['./linear_kpu-vitb.py', '../../_base_/models/base_a.py']
model = dict(backbone=dict(_delete_=True, out_type='summary', **_base_.base_a_backbone))
