optim_wrapper = dict(
    type='kpu_mm.AutocastOptimWrapper',  # not given in the paper
    constructor='kpu_mm.TrainableConstructor',
    optimizer=dict(type='AdamW', lr=2e-4, weight_decay=0.05),
)
param_scheduler = dict(type='CosineAnnealingLR', T_max=40000, by_epoch=False)
train_cfg = dict(type='kpu_mm.MultiStreamTrainLoop', max_iters=40000)
