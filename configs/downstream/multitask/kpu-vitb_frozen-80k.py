# All decoders of the paper on one student, trained together: each step takes
# a batch of every task. Batch sizes are not given in the paper.
_base_ = [
    '../../_base_/models/kpu_backbone.py',
    '../../_base_/tasks/coco.py',
    '../../_base_/tasks/ade20k.py',
    '../../_base_/tasks/imagenet.py',
    '../../_base_/schedules/downstream_80k.py',
    '../../_base_/downstream_runtime.py',
]

model = dict(
    type='kpu_mm.MultiTaskModel',
    backbone=dict(out_type='features', **_base_.backbone),
    tasks=dict(
        coco=_base_.coco_model,
        ade20k=_base_.ade20k_model,
        imagenet=dict(features=dict(out_type='summary'), **_base_.imagenet_model),
    ),
)
train_dataloader = dict(
    coco=_base_.coco_train_dataloader,
    ade20k=_base_.ade20k_train_dataloader,
    imagenet=_base_.imagenet_train_dataloader,
)
val_dataloader = dict(
    coco=_base_.coco_val_dataloader,
    ade20k=_base_.ade20k_val_dataloader,
    imagenet=_base_.imagenet_val_dataloader,
)
test_dataloader = val_dataloader
val_evaluator = dict(
    coco=_base_.coco_val_evaluator,
    ade20k=_base_.ade20k_val_evaluator,
    imagenet=_base_.imagenet_val_evaluator,
)
test_evaluator = val_evaluator

train_cfg = dict(type='kpu_mm.MultiStreamTrainLoop')
val_cfg = dict(type='kpu_mm.MultiTaskValLoop')
test_cfg = dict(type='kpu_mm.MultiTaskTestLoop')
# not given in the paper; as Mask DINO is trained, and only that: one norm
# over all tasks would scale UPerNet's gradient by Mask DINO's
default_hooks = dict(clip=dict(type='kpu_mm.ModuleClipHook', max_norm={'tasks.coco': 0.01}))
