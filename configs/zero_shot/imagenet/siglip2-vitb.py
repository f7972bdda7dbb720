# SigLIP 2 itself, whose scores are sigmoids. Images are resized to a square,
# as it was trained.
_base_ = './clip-vitb.py'
siglip = dict(model='ViT-B-16-SigLIP2', pretrained='webli')
model = dict(backbone=dict(teacher=siglip), head=dict(clip=siglip))
test_dataloader = dict(
    dataset=dict(
        pipeline=[
            dict(type='LoadImageFromFile', _scope_='kpu_mm'),
            dict(type='Resize', scale=(224, 224), backend='pillow', interpolation='bicubic'),
            dict(type='PackInputs'),
        ]
    )
)
del siglip
