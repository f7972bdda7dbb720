# A larger CLIP: maps of stride 14.
_base_ = './kpu_vitb.py'
model = dict(teachers=dict(clip=dict(model='ViT-L-14-quickgelu')))
