# A run for a CPU: the lab's trained micro teachers and sentinel, on digit
# scenes without their labels.
_base_ = [
    '../../../configs/_base_/schedules/kpu_40k.py',
    '../../../configs/_base_/default_runtime.py',
]
custom_imports = dict(imports=['projects.micro_lab.digit_scenes'], allow_failed_imports=False)

models = '{{fileDirname}}/../teachers'
max_iters = 800

model = dict(
    type='kpu_mm.KPUDistiller',
    # With one interaction every level uses the sentinel's last layer.
    student=dict(
        type='kpu_mm.KPUBackbone',
        sentinel=f'{models}/sentinel',
        num_interactions=1,
        num_extra_extractors=0,
        inplanes=32,
    ),
    teachers=dict(
        clip=dict(type='kpu_mm.CLIPTeacher', model=f'local-dir:{models}/clip'),
        grounding_dino=dict(type='kpu_mm.GroundingDINOTeacher', source=f'{models}/grounding_dino'),
    ),
    projector=dict(type='kpu_mm.MLPProjector', hidden=256),
)

# The teachers were trained on the scenes of seed 0.
stream = dict(
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
train_dataloader = dict(clip=dict(stream, batch_size=4), grounding_dino=dict(stream, batch_size=12))

optim_wrapper = dict(type='OptimWrapper', optimizer=dict(lr=4e-3))
param_scheduler = dict(T_max=max_iters)
train_cfg = dict(max_iters=max_iters)
default_hooks = dict(logger=dict(interval=20), checkpoint=dict(interval=max_iters // 2))
custom_hooks = [
    dict(type='kpu_mm.NonFiniteHook'),
    dict(type='kpu_mm.SkippedImagesHook'),
    dict(type='kpu_mm.FeaturePCAHook', interval=max_iters // 2, num_images=4),
]
