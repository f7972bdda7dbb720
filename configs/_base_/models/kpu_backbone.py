# The distilled student. Frozen features: `frozen='all'`; learnable features:
# `frozen='sentinel'`.
backbone = dict(
    type='kpu_mm.KPUBackbone',
    sentinel='facebook/dinov2-base',
    frozen='all',
    norm_cfg=dict(type='SyncBN'),
    init_cfg=dict(type='Pretrained', checkpoint='work_dirs/kpu_vitb/iter_40000.pth'),
)
