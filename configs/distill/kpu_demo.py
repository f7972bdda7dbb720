# A run for a CPU: a small student and two small teachers on a handful of
# photographs. tools/demo_distill.py makes the models and the photographs.
_base_ = ['../_base_/schedules/kpu_40k.py', '../_base_/default_runtime.py']

root = '{{$KPU_MM_DEMO:work_dirs/demo}}'
max_iters = 160

model = dict(
    type='kpu_mm.KPUDistiller',
    student=dict(
        type='kpu_mm.KPUBackbone',
        sentinel=f'{root}/models/sentinel',
        inplanes=32,
    ),
    teachers=dict(
        clip=dict(
            type='kpu_mm.CLIPTeacher', model=f'local-dir:{root}/models/clip'
        ),
        grounding_dino=dict(
            type='kpu_mm.GroundingDINOTeacher',
            source=f'{root}/models/grounding_dino',
        ),
    ),
    projector=dict(type='kpu_mm.MLPProjector', hidden=192),
)

photos = dict(type='kpu_mm.FolderSource', root=f'{root}/photos')
train_dataloader = dict(
    clip=dict(
        batch_size=8,
        num_workers=1,
        dataset=dict(
            type='kpu_mm.UnlabeledImages',
            sources=photos,
            pipeline=[
                dict(type='kpu_mm.DecodeRandomResizedCrop', size=112),
                dict(type='mmcv.RandomFlip', prob=0.5),
                dict(type='kpu_mm.PackImage'),
            ],
        ),
    ),
    grounding_dino=dict(
        batch_size=2,
        num_workers=1,
        dataset=dict(
            type='kpu_mm.UnlabeledImages',
            sources=photos,
            pipeline=[
                dict(type='kpu_mm.DecodeResize', shortest=160, longest=240),
                dict(type='mmcv.RandomFlip', prob=0.5),
                dict(type='kpu_mm.PackImage'),
            ],
        ),
    ),
)

optim_wrapper = dict(type='OptimWrapper', optimizer=dict(lr=1e-3))
param_scheduler = dict(T_max=max_iters)
train_cfg = dict(max_iters=max_iters)
default_hooks = dict(
    logger=dict(interval=10), checkpoint=dict(interval=max_iters // 2)
)
custom_hooks = [
    dict(type='kpu_mm.NonFiniteHook'),
    dict(type='kpu_mm.SkippedImagesHook'),
    dict(type='kpu_mm.FeaturePCAHook', interval=max_iters // 2, num_images=4),
]
