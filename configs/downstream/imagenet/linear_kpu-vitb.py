_base_ = [
    '../../_base_/models/kpu_backbone.py',
    '../../_base_/tasks/imagenet.py',
    '../../_base_/schedules/downstream_80k.py',
    '../../_base_/downstream_runtime.py',
]
default_scope = 'mmpretrain'

model = dict(backbone=dict(out_type='summary', **_base_.backbone), **_base_.imagenet_model)
train_dataloader = _base_.imagenet_train_dataloader
val_dataloader = _base_.imagenet_val_dataloader
test_dataloader = val_dataloader
val_evaluator = _base_.imagenet_val_evaluator
test_evaluator = val_evaluator
visualizer = _base_.imagenet_visualizer
default_hooks = dict(
    visualization=dict(type='VisualizationHook'),
    joint_checkpoint=dict(type='kpu_mm.JointCheckpointHook', task='imagenet'),
)
