teacher_backbone = dict(
    type='kpu_mm.TeacherBackbone',
    embed_dims=768,
    teacher=dict(
        type='kpu_mm.TimmTeacher',
        model='vit_base_patch16_224.mae',
        options=dict(dynamic_img_size=True),
    ),
)
