# A run for a CPU: the trained micro teachers and sentinel of tools/micro, on
# digit scenes of which only the pictures are seen.
_base_ = ['../_base_/schedules/kpu_40k.py', '../_base_/default_runtime.py']

models = '{{fileDirname}}/../../tools/micro/teachers'
max_iters = 600

model = dict(
    type='kpu_mm.KPUDistiller',
    student=dict(
        type='kpu_mm.KPUBackbone', sentinel=f'{models}/sentinel', inplanes=32
    ),
    teachers=dict(
        clip=dict(type='kpu_mm.CLIPTeacher', model=f'local-dir:{models}/clip'),
        grounding_dino=dict(
            type='kpu_mm.GroundingDINOTeacher',
            source=f'{models}/grounding_dino',
        ),
    ),
    projector=dict(type='kpu_mm.MLPProjector', hidden=256),
)

# the teachers learnt from series 0
stream = dict(
    batch_size=16,
    num_workers=1,
    dataset=dict(
        type='kpu_mm.UnlabeledImages',
        sources=dict(type='kpu_mm.DigitSceneSource', seed=1, count=100_000),
        pipeline=[
            dict(type='kpu_mm.DecodeResize', shortest=64, longest=64),
            dict(type='kpu_mm.PackImage'),
        ],
    ),
)
train_dataloader = dict(clip=stream, grounding_dino=stream)

optim_wrapper = dict(type='OptimWrapper', optimizer=dict(lr=2e-3))
param_scheduler = dict(T_max=max_iters)
train_cfg = dict(max_iters=max_iters)
default_hooks = dict(
    logger=dict(interval=20), checkpoint=dict(interval=max_iters // 2)
)
custom_hooks = [
    dict(type='kpu_mm.NonFiniteHook'),
    dict(type='kpu_mm.SkippedImagesHook'),
    dict(type='kpu_mm.FeaturePCAHook', interval=max_iters // 2, num_images=4),
]
