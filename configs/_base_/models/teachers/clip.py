# It takes one size only: other images are resized to `resolution`. Which
# size was used is not given in the paper.
teacher_backbone = dict(
    type='kpu_mm.TeacherBackbone',
    embed_dims=768,
    teacher=dict(type='kpu_mm.CLIPTeacher', model='ViT-B-16-quickgelu', pretrained='openai'),
)
