# RADIOv2.5, the second of three stages: 432 x 432, mosaics of 2 x 2 images.
_base_ = './radio-256_vitb.py'
low = _base_.train_dataloader.low.dataset
train_dataloader = dict(
    low=dict(dataset=dict(pipeline=[dict(low.pipeline[0], size=432), *low.pipeline[1:]]))
)
load_from = 'work_dirs/radio-256_vitb/iter_300000.pth'
