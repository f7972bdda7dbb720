# The teachers' standard deviations differ by 33 as in the paper, not by 1.9.
_base_ = './kpu.py'
custom_imports = dict(
    imports=['projects.micro_lab.digit_scenes', 'projects.micro_lab.scaled_teacher'],
    allow_failed_imports=False,
)
model = dict(teachers=dict(grounding_dino=dict(type='kpu_mm.ScaledGroundingDINO', scale=18)))
