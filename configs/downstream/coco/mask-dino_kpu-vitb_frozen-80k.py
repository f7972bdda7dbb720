_base_ = [
    '../../_base_/models/kpu_backbone.py',
    '../../_base_/tasks/coco.py',
    '../../_base_/schedules/downstream_80k.py',
    '../../_base_/downstream_runtime.py',
]
default_scope = 'mmdet'

model = dict(backbone=_base_.backbone, **_base_.coco_model)
train_dataloader = _base_.coco_train_dataloader
val_dataloader = _base_.coco_val_dataloader
test_dataloader = val_dataloader
val_evaluator = _base_.coco_val_evaluator
test_evaluator = val_evaluator
visualizer = _base_.coco_visualizer
default_hooks = dict(
    visualization=dict(type='DetVisualizationHook'),
    joint_checkpoint=dict(type='kpu_mm.JointCheckpointHook', task='coco'),
)

# as Mask DINO is trained
optim_wrapper = dict(clip_grad=dict(max_norm=0.01, norm_type=2))
