# RADIOv2.5, the last of three stages, against mode switching: every teacher
# sees 1024 images of 432 x 432 and 128 of 1024 x 1024 in each iteration.
_base_ = './radio-432_vitb.py'
low = _base_.train_dataloader.low.dataset
both = ['low', 'high']
model = dict(streams=dict(clip=both, siglip=both, dinov2=both, sam=both))
train_dataloader = dict(
    high=dict(
        batch_size=4,
        num_workers=4,
        dataset=dict(low, pipeline=[dict(low.pipeline[0], size=1024), *low.pipeline[1:]]),
    )
)
load_from = 'work_dirs/radio-432_vitb/iter_300000.pth'
