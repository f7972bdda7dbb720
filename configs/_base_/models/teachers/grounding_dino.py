# The variant is not given in the paper; the one of _base_/models/kpu_vitb.py.
teacher_backbone = dict(
    type='kpu_mm.TeacherBackbone',
    embed_dims=768,
    teacher=dict(type='kpu_mm.GroundingDINOTeacher', source='IDEA-Research/grounding-dino-base'),
)
