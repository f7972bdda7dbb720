# A small ViT with random weights learns EfficientNet-Lite0 on photographs
# without labels, on one core of a CPU. projects/real_model/agreement.py writes
# what it reads to the folder of the environment variable KPU_MM_REAL. Sizes,
# rate and schedule are ours.
_base_ = [
    '../../../configs/_base_/schedules/kpu_40k.py',
    '../../../configs/_base_/default_runtime.py',
]
folder = '{{$KPU_MM_REAL:work_dirs/real}}'
size = 96
max_iters = 2200

model = dict(
    type='kpu_mm.KPUDistiller',
    # Base_a's kind of student: nothing of a random ViT is worth freezing.
    student=dict(
        type='kpu_mm.ViTBackbone',
        sentinel=dict(
            model_type='dinov2',
            hidden_size=128,
            num_hidden_layers=4,
            num_attention_heads=4,
            image_size=size,
            patch_size=12,
        ),
        frozen='none',
    ),
    teachers=dict(
        lite0=dict(
            type='kpu_mm.TimmTeacher',
            model='tf_efficientnet_lite0',
            checkpoint=f'{folder}/lite0.safetensors',
        )
    ),
    terms=dict(s2t=1.0),
    projector=dict(type='kpu_mm.MLPProjector', hidden=512),
    # Centres and scales; differences keep the proportions that the classifier
    # was trained with.
    normalizer=dict(type='kpu_mm.PHISNormalizer'),
    # The classifier also needs the length of the summary, which no cosine sees.
    align=dict(type='kpu_mm.AlignLoss', summary_smooth_l1=1.0),
)

train_dataloader = dict(
    lite0=dict(
        batch_size=16,
        num_workers=1,
        dataset=dict(
            type='kpu_mm.UnlabeledImages',
            sources=dict(type='kpu_mm.ListSource', list_file=f'{folder}/photographs/train.txt'),
            pipeline=[
                dict(type='kpu_mm.DecodeRandomResizedCrop', size=size, scale=(0.3, 1.0)),
                dict(type='mmcv.RandomFlip', prob=0.5),
                dict(type='kpu_mm.PackImage'),
            ],
        ),
    )
)

optim_wrapper = dict(type='OptimWrapper', optimizer=dict(lr=1e-3))
param_scheduler = dict(T_max=max_iters)
train_cfg = dict(max_iters=max_iters)
default_hooks = dict(
    logger=dict(interval=50), checkpoint=dict(interval=500), normalizer_fit=dict(num_images=2000)
)
custom_hooks = [dict(type='kpu_mm.NonFiniteHook'), dict(type='kpu_mm.SkippedImagesHook')]
