# CLIP itself, to compare with.
_base_ = './kpu-vitb.py'
model = dict(
    # the teacher normalises for itself
    data_preprocessor=dict(mean=None, std=None),
    backbone=dict(
        _delete_=True,
        type='kpu_mm.TeacherEncoder',
        teacher=dict(type='kpu_mm.CLIPTeacher', **_base_.clip),
        out_type='summary',
    ),
)
