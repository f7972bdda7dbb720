# The variant is not given in the paper.
teacher_backbone = dict(
    type='kpu_mm.TeacherBackbone',
    embed_dims=768,
    teacher=dict(type='kpu_mm.GroundingDINOTeacher', source='IDEA-Research/grounding-dino-tiny'),
)
