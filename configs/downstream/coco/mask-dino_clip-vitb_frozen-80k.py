_base_ = ['./mask-dino_kpu-vitb_frozen-80k.py', '../../_base_/models/teachers/clip.py']
_base_.teacher_backbone.teacher.resolution = (1024, 1024)
model = dict(backbone=dict(_delete_=True, **_base_.teacher_backbone))
