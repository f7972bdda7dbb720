# KPU with the micro teachers over the general sentinel, which has never seen a
# digit. CLIP's images are larger than GroundingDINO's, as in the paper. The
# other configs for distillation in this folder differ from it as those of
# configs/distill differ from kpu_vitb.py.
_base_ = './kpu_demo.py'
model = dict(student=dict(sentinel=f'{_base_.models}/general_sentinel'))
train_dataloader = dict(
    clip=dict(
        dataset=dict(
            sources=dict(size=96),
            pipeline=[
                dict(type='kpu_mm.DecodeResize', shortest=96, longest=96),
                dict(type='kpu_mm.PackImage'),
            ],
        )
    )
)
custom_hooks = [dict(type='kpu_mm.NonFiniteHook'), dict(type='kpu_mm.SkippedImagesHook')]
