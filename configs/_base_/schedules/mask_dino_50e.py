# Mask DINO (https://arxiv.org/abs/2206.02777) on COCO, 50 epochs of 16 images
# an iteration.
optim_wrapper = dict(
    type='AmpOptimWrapper',  # float16, as published
    constructor='kpu_mm.TrainableConstructor',
    optimizer=dict(type='AdamW', lr=1e-4, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.05),
    clip_grad=dict(max_norm=0.01, norm_type=2),
    paramwise_cfg=dict(
        custom_keys={
            'backbone': dict(lr_mult=0.1),
            'label_embedding': dict(decay_mult=0.0),
            'content_embedding': dict(decay_mult=0.0),
            'box_embedding': dict(decay_mult=0.0),
        },
        norm_decay_mult=0.0,
    ),
)
param_scheduler = dict(type='MultiStepLR', milestones=[327_778, 355_092], by_epoch=False)
train_cfg = dict(type='kpu_mm.ResumableTrainLoop', max_iters=368_750, val_interval=5_000)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
