# The student of distill/base-a_vitb.py, a ViT without an adapter. Frozen
# features: `frozen='sentinel'`; learnable features: `frozen='none'`. The
# pyramid over the ViT's map is not given in the paper.
base_a_backbone = dict(
    type='kpu_mm.ViTBackbone',
    sentinel='facebook/dinov2-base',
    init_cfg=dict(type='Pretrained', checkpoint='work_dirs/base-a_vitb/iter_40000.pth'),
)
