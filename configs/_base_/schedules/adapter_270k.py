# The 3x schedule of detectors, as ViT-Adapter trains them: 16 images a step.
optim_wrapper = dict(
    type='OptimWrapper',  # mmcv's RoIAlign takes no bfloat16
    constructor='kpu_mm.TrainableConstructor',
    optimizer=dict(type='AdamW', lr=1e-4, weight_decay=0.05),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, begin=0, end=500, by_epoch=False),
    dict(type='MultiStepLR', milestones=[202_500, 247_500], gamma=0.1, by_epoch=False),
]
train_cfg = dict(type='kpu_mm.ResumableTrainLoop', max_iters=270_000, val_interval=30_000)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
