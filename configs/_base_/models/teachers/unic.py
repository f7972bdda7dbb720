# A plain ViT-B/16 with ImageNet's mean and deviation, as timm's `.mae` is. The
# checkpoint comes from the file unic.pth of https://github.com/naver/unic:
#   python tools/model_converters/unic_to_timm.py unic.pth \
#       checkpoints/unic.safetensors
teacher_backbone = dict(
    type='kpu_mm.TeacherBackbone',
    embed_dims=768,
    teacher=dict(
        type='kpu_mm.TimmTeacher',
        model='vit_base_patch16_224.mae',
        checkpoint='checkpoints/unic.safetensors',
        options=dict(dynamic_img_size=True),
    ),
)
