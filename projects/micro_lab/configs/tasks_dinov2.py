_base_ = './tasks.py'
model = dict(
    backbone=dict(
        _delete_=True,
        type='kpu_mm.TeacherBackbone',
        out_type='features',
        teacher=dict(type='kpu_mm.DINOTeacher', source=_base_.model.backbone.sentinel),
        embed_dims=_base_.channels,
    )
)
