# DINOv2 with an untrained ViT-Adapter: no distillation. Drop path is
# ViT-Adapter's for its B models.
backbone = dict(
    type='kpu_mm.KPUBackbone',
    sentinel='facebook/dinov2-base',
    drop_path_rate=0.3,
    norm_cfg=dict(type='SyncBN'),
)
