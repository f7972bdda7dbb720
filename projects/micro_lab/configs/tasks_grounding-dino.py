_base_ = './tasks.py'
model = dict(
    backbone=dict(
        _delete_=True,
        type='kpu_mm.TeacherBackbone',
        out_type='features',
        teacher=_base_.teachers.grounding_dino,
        embed_dims=_base_.channels,
    ),
    # It has no summary, so the mean of its coarsest map is used.
    tasks=dict(classification=dict(head=dict(in_channels=160))),
)
