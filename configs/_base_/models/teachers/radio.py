# RADIO-v2.5-B in timm's code, which takes any size. Put model.safetensors of
# nvidia/RADIO-B where `checkpoint` says. Unlike the C-RADIOv3 that timm names
# the model after, it has no LayerScale. Its summary here is the first class
# token, CLIP's; the released model joins three of them.
teacher_backbone = dict(
    type='kpu_mm.TeacherBackbone',
    embed_dims=768,
    teacher=dict(
        type='kpu_mm.TimmTeacher',
        model='naflexvit_base_patch16_radio_v3',
        checkpoint='checkpoints/radio_v2.5-b.safetensors',
        options=dict(init_values=0),
    ),
)
