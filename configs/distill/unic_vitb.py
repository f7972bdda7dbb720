# UNIC (https://arxiv.org/abs/2408.05088) on 4 GPUs with 128 images each:
# layer-wise projectors, targets with mean 0 and variance 1 in each channel by
# moving averages, teacher dropping, the same images for all. Numbers are those
# of the authors' code. What differs: there is no drop path; the last block's
# features have passed the final norm. iBOT and dBOT are put where
# `checkpoint` says, as timm names their weights.
_base_ = [
    '../_base_/models/vitb16.py',
    '../_base_/schedules/kpu_40k.py',
    '../_base_/default_runtime.py',
]
epoch = 2502
max_iters = 200 * epoch
warmup = 10 * epoch

model = dict(
    type='kpu_mm.KPUDistiller',
    student=dict(blocks=list(range(1, 13)), **_base_.vitb16),
    teachers=dict(
        dino=dict(type='kpu_mm.TimmTeacher', model='vit_base_patch16_224.dino'),
        deit3=dict(type='kpu_mm.TimmTeacher', model='deit3_base_patch16_224.fb_in1k'),
        ibot=dict(
            type='kpu_mm.TimmTeacher',
            model='vit_base_patch16_224.dino',
            checkpoint='checkpoints/ibot_vitb16.safetensors',
        ),
        dbot_ft=dict(
            type='kpu_mm.TimmTeacher',
            model='vit_base_patch16_224.mae',
            checkpoint='checkpoints/dbot-ft_vitb16.safetensors',
            options=dict(num_classes=1000, global_pool='avg'),
        ),
    ),
    streams=dict(dino='images', deit3='images', ibot='images', dbot_ft='images'),
    terms=dict(s2t=1.0),
    normalizer=dict(type='kpu_mm.MovingNormalizer', updates=max_iters, by='average', eps=1e-6),
    projector=dict(type='kpu_mm.LayerwiseProjector', num_blocks=12, hidden=768, last_hidden=3072),
    # the mean over CLS and patches of half cosine, half smooth L1
    align=dict(
        type='kpu_mm.AlignLoss', summary=0.25, summary_smooth_l1=0.25, cosine=0.25, smooth_l1=0.25
    ),
    balancer=dict(type='kpu_mm.TeacherDropBalancer', drop_prob=0.5),
)

train_dataloader = dict(
    images=dict(
        batch_size=128,
        num_workers=12,
        dataset=dict(
            type='kpu_mm.UnlabeledImages',
            sources=dict(type='kpu_mm.FolderSource', root='data/imagenet/train'),
            pipeline=[
                dict(type='kpu_mm.DecodeRandomResizedCrop', size=224, scale=(0.08, 1.0)),
                dict(type='mmcv.RandomFlip', prob=0.5),
                dict(
                    type='kpu_mm.TorchvisionTransform',
                    name='ColorJitter',
                    prob=0.8,
                    brightness=0.4,
                    contrast=0.4,
                    saturation=0.2,
                    hue=0.1,
                ),
                dict(
                    type='kpu_mm.TorchvisionTransform',
                    name='Grayscale',
                    prob=0.2,
                    num_output_channels=3,
                ),
                dict(
                    type='kpu_mm.TorchvisionTransform',
                    name='GaussianBlur',
                    prob=0.2,
                    kernel_size=9,
                    sigma=(0.1, 5.0),
                ),
                dict(
                    type='kpu_mm.TorchvisionTransform', name='RandomSolarize', threshold=128, p=0.2
                ),
                dict(type='kpu_mm.PackImage'),
            ],
        ),
    )
)

# 3e-4 for 256 images; no weight decay for biases and norms
optim_wrapper = dict(
    optimizer=dict(lr=6e-4, betas=(0.9, 0.99), weight_decay=0.03),
    paramwise_cfg=dict(flat_decay_mult=0.0, bias_decay_mult=0.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6, end=warmup, by_epoch=False),
    dict(
        type='CosineAnnealingLR',
        T_max=max_iters - warmup,
        eta_min=1e-6,
        begin=warmup,
        by_epoch=False,
    ),
]
train_cfg = dict(max_iters=max_iters)
