# RADIOv2.5 (https://arxiv.org/abs/2412.07679), the first of three stages: all
# teachers at 256 x 256, SAM through mosaics of 4 x 4 images. Targets go
# through PHI-S (https://arxiv.org/abs/2410.01680); maps are compared by
# squared error, summaries by cosine. 32 images on each of 32 GPUs; 1024 in an
# iteration is the paper's, the number of GPUs is not given in the paper.
_base_ = [
    '../_base_/models/vitb16.py',
    '../_base_/schedules/kpu_40k.py',
    '../_base_/default_runtime.py',
]
max_iters = 300_000

model = dict(
    type='kpu_mm.KPUDistiller',
    # pre-trained on ImageNet-1K in the paper, random weights here
    student=_base_.vitb16,
    teachers=dict(
        clip=dict(type='kpu_mm.CLIPTeacher', model='ViT-H-14-378-quickgelu', pretrained='dfn5b'),
        siglip=dict(
            type='kpu_mm.CLIPTeacher', model='ViT-SO400M-14-SigLIP-384', pretrained='webli'
        ),
        dinov2=dict(type='kpu_mm.DINOTeacher', source='facebook/dinov2-with-registers-giant'),
        sam=dict(
            type='kpu_mm.MosaicTeacher',
            side=1024,
            teacher=dict(type='kpu_mm.TimmTeacher', model='samvit_huge_patch16.sa1b'),
        ),
    ),
    streams=dict(clip='low', siglip='low', dinov2='low', sam='low'),
    terms=dict(s2t=1.0),
    normalizer=dict(type='kpu_mm.PHISNormalizer', summary=False),
    # not given in the paper
    projector=dict(type='kpu_mm.MLPProjector', hidden=768),
    align=dict(type='kpu_mm.AlignLoss', summary=1.0, cosine=0.0, smooth_l1=0.0, mse=1.0),
)

train_dataloader = dict(
    low=dict(
        batch_size=32,
        num_workers=8,
        dataset=dict(
            type='kpu_mm.UnlabeledImages',
            # DataComp-1B
            sources=dict(type='kpu_mm.TarSource', shards='data/datacomp_1b/*.tar'),
            pipeline=[
                # transforms are not given in the paper
                dict(type='kpu_mm.DecodeRandomResizedCrop', size=256),
                dict(type='mmcv.RandomFlip', prob=0.5),
                dict(type='kpu_mm.PackImage'),
            ],
        ),
    )
)

# the optimiser is KPU's
train_cfg = dict(max_iters=max_iters)
param_scheduler = dict(T_max=max_iters)
