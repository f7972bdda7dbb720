# The student's summary, through its CLIP projector, against CLIP's text
# embeddings of open_clip's 1000 names in 80 templates.
_base_ = [
    '../../_base_/models/zero_shot.py',
    '../../_base_/tasks/imagenet.py',
    '../../_base_/zero_shot_runtime.py',
]
default_scope = 'mmpretrain'

model = dict(
    type='ImageClassifier',
    data_preprocessor=_base_.imagenet_model.data_preprocessor,
    backbone=dict(teacher='clip', out_type='summary', **_base_.student),
    head=dict(
        type='kpu_mm.ZeroShotClsHead',
        clip=_base_.clip,
        classes='imagenet',
        cache_dir=_base_.text_cache,
    ),
)
loader = _base_.imagenet_val_dataloader
test_dataloader = dict(
    loader,
    dataset=dict(
        loader.dataset,
        # CLIP's own: the short side is resized to what is then cropped
        pipeline=[
            dict(type='LoadImageFromFile', _scope_='kpu_mm'),
            dict(
                type='ResizeEdge',
                scale=224,
                edge='short',
                backend='pillow',
                interpolation='bicubic',
            ),
            dict(type='CenterCrop', crop_size=224),
            dict(type='PackInputs'),
        ],
    ),
)
test_evaluator = _base_.imagenet_val_evaluator
visualizer = _base_.imagenet_visualizer
default_hooks = dict(visualization=dict(type='VisualizationHook'))
del loader
