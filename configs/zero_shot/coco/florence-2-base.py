# Florence-2, to compare with. Its processor resizes images by itself.
_base_ = './kpu-vitb.py'
model = dict(
    _delete_=True,
    type='kpu_mm.FlorenceDetector',
    source='florence-community/Florence-2-base',
    data_preprocessor=dict(type='DetDataPreprocessor', bgr_to_rgb=True),
)
pack = _base_.test_dataloader.dataset.pipeline[-1]
test_dataloader = dict(
    dataset=dict(pipeline=[dict(type='LoadImageFromFile', _scope_='kpu_mm'), pack])
)
del pack
