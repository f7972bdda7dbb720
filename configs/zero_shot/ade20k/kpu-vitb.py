# The student's maps, through its CLIP projector, read as CLIP reads its
# pooled token, against text embeddings of the 150 names. Not a measurement of
# the paper.
_base_ = [
    '../../_base_/models/zero_shot.py',
    '../../_base_/tasks/ade20k.py',
    '../../_base_/zero_shot_runtime.py',
]
default_scope = 'mmseg'

model = dict(
    type='EncoderDecoder',
    data_preprocessor=_base_.ade20k_model.data_preprocessor,
    backbone=dict(teacher='clip', **_base_.student),
    decode_head=dict(
        type='kpu_mm.ZeroShotSegHead',
        clip=_base_.clip,
        classes='ade20k',
        cache_dir=_base_.text_cache,
    ),
    # windows of the size that CLIP was trained with and distilled at
    test_cfg=dict(mode='slide', crop_size=(224, 224), stride=(112, 112)),
)
loader = _base_.ade20k_val_dataloader
test_dataloader = dict(
    loader,
    dataset=dict(
        loader.dataset,
        pipeline=[
            dict(type='LoadImageFromFile', _scope_='kpu_mm'),
            dict(type='Resize', scale=(2048, 336), keep_ratio=True),
            # after Resize: the prediction is resized to the labels
            dict(type='kpu_mm.CheckLabelMap'),
            dict(type='LoadAnnotations', reduce_zero_label=True),
            dict(type='PackSegInputs'),
        ],
    ),
)
test_evaluator = _base_.ade20k_val_evaluator
visualizer = _base_.ade20k_visualizer
default_hooks = dict(visualization=dict(type='SegVisualizationHook'))
del loader
