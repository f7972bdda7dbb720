_base_ = './tasks.py'
model = dict(
    backbone=dict(
        _delete_=True,
        type='kpu_mm.TeacherBackbone',
        out_type='features',
        teacher=_base_.teachers.clip,
        embed_dims=_base_.channels,
    ),
    tasks=dict(classification=dict(head=dict(in_channels=64))),
)
