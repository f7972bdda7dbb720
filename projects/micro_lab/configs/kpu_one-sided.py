# t2s trains the student, and not h_t2s.
_base_ = './kpu.py'
custom_imports = dict(
    imports=['projects.micro_lab.digit_scenes', 'projects.micro_lab.one_sided_loss'],
    allow_failed_imports=False,
)
model = dict(align=dict(type='kpu_mm.OneSidedAlignLoss'))
