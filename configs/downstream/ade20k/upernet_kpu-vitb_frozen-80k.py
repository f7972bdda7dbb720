_base_ = [
    '../../_base_/models/kpu_backbone.py',
    '../../_base_/tasks/ade20k.py',
    '../../_base_/schedules/downstream_80k.py',
    '../../_base_/downstream_runtime.py',
]
default_scope = 'mmseg'

model = dict(backbone=_base_.backbone, **_base_.ade20k_model)
train_dataloader = _base_.ade20k_train_dataloader
val_dataloader = _base_.ade20k_val_dataloader
test_dataloader = val_dataloader
val_evaluator = _base_.ade20k_val_evaluator
test_evaluator = val_evaluator
visualizer = _base_.ade20k_visualizer
default_hooks = dict(
    visualization=dict(type='SegVisualizationHook'),
    joint_checkpoint=dict(type='kpu_mm.JointCheckpointHook', task='ade20k'),
)
