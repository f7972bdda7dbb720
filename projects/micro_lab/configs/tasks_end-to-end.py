# The student of Base_a, a ViT without an adapter.
_base_ = './tasks.py'
model = dict(
    backbone=dict(
        _delete_=True,
        type='kpu_mm.ViTBackbone',
        out_type='features',
        sentinel=_base_.model.backbone.sentinel,
    )
)
