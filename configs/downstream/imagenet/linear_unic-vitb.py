_base_ = ['./linear_kpu-vitb.py', '../../_base_/models/teachers/unic.py']
model = dict(backbone=dict(_delete_=True, out_type='summary', **_base_.teacher_backbone))
