# Of all downstream tasks, alone or together, with frozen features. The rate
# of the distillation run is kept: "same optimiser". Mask DINO's decoders,
# matching and losses compute in float32 whatever the autocast.
optim_wrapper = dict(
    type='kpu_mm.AutocastOptimWrapper',  # bfloat16, not given in the paper
    constructor='kpu_mm.TrainableConstructor',
    optimizer=dict(type='AdamW', lr=2e-4, weight_decay=0.05),
)
param_scheduler = dict(type='CosineAnnealingLR', T_max=80_000, by_epoch=False)
train_cfg = dict(
    type='kpu_mm.ResumableTrainLoop',
    max_iters=80_000,
    val_interval=8_000,  # not given in the paper
)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
