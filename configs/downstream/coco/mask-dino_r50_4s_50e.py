_base_ = [
    '../../_base_/models/resnet50.py',
    '../../_base_/tasks/coco.py',
    '../../_base_/schedules/mask_dino_50e.py',
    '../../_base_/downstream_runtime.py',
]
default_scope = 'mmdet'

model = dict(backbone=_base_.backbone, **_base_.coco_model)
model['bbox_head']['pixel_decoder']['in_channels'] = [256, 512, 1024, 2048]
train_dataloader = _base_.coco_train_dataloader
val_dataloader = _base_.coco_val_dataloader
test_dataloader = val_dataloader
val_evaluator = _base_.coco_val_evaluator
test_evaluator = val_evaluator
visualizer = _base_.coco_visualizer
default_hooks = dict(visualization=dict(type='DetVisualizationHook'))
