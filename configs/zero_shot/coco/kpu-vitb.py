# The student's maps, through its GroundingDINO projectors, in that teacher's
# own neck, text encoder, feature enhancer and decoder; COCO's 80 names.
_base_ = [
    '../../_base_/models/zero_shot.py',
    '../../_base_/tasks/coco.py',
    '../../_base_/zero_shot_runtime.py',
]
default_scope = 'mmdet'

model = dict(
    type='kpu_mm.ZeroShotDetector',
    teacher=_base_.grounding_dino,
    encoder=dict(teacher='grounding_dino', **_base_.student),
    # no mean and std: the encoder normalises for itself
    data_preprocessor=dict(type='DetDataPreprocessor', bgr_to_rgb=True),
)
meta_keys = (
    'img_id',
    'img_path',
    'ori_shape',
    'img_shape',
    'scale_factor',
    'text',
    'custom_entities',
)
loader = _base_.coco_val_dataloader
test_dataloader = dict(
    loader,
    dataset=dict(
        loader.dataset,
        return_classes=True,
        pipeline=[
            dict(type='LoadImageFromFile', _scope_='kpu_mm'),
            dict(type='FixScaleResize', scale=(800, 1333), keep_ratio=True, backend='pillow'),
            dict(type='PackDetInputs', meta_keys=meta_keys),
        ],
    ),
)
test_evaluator = dict(_base_.coco_val_evaluator, metric='bbox')
visualizer = _base_.coco_visualizer
default_hooks = dict(visualization=dict(type='DetVisualizationHook'))
del loader, meta_keys
