_base_ = './base-b.py'
dinov2 = _base_.model.student.sentinel
model = dict(
    student=dict(
        _delete_=True,
        type='kpu_mm.ViTBackbone',
        sentinel=dinov2,
        frozen='none',
    ),
    teachers=dict(dinov2=dict(type='kpu_mm.DINOTeacher', source=dinov2)),
    streams=dict(dinov2='clip'),
)
