# RADIO's last stage with the sizes of C-RADIOv4
# (https://arxiv.org/abs/2601.17237), others in each iteration. The largest of
# them, 1152, is left out: SAM takes 1024 at most.
_base_ = './radio_vitb.py'
streams = _base_.train_dataloader
train_dataloader = dict(
    low=dict(
        dataset=dict(
            _delete_=True,
            type='kpu_mm.MixedResolution',
            sizes=[128, 192, 224, 256, 384, 432],
            dataset=streams.low.dataset,
        )
    ),
    high=dict(
        dataset=dict(
            _delete_=True,
            type='kpu_mm.MixedResolution',
            sizes=[512, 768, 1024],
            dataset=streams.high.dataset,
        )
    ),
)
