teacher_backbone = dict(
    type='kpu_mm.TeacherBackbone',
    embed_dims=768,
    teacher=dict(type='kpu_mm.DINOTeacher', source='facebook/dinov2-base'),
)
