# A trial on a CPU: the small student and the narrow decoders of the single
# tasks' trials, trained together. Data as there; the classes of ImageNet as
# one folder each.
_base_ = './kpu-vitb_frozen-80k.py'

read = __import__('mmengine').Config.fromfile
coco = read('{{ fileDirname }}/../coco/mask-dino_kpu-tiny_cpu.py')
ade20k = read('{{ fileDirname }}/../ade20k/upernet_kpu-tiny_cpu.py')
student = coco.model.pop('backbone')
ade20k.model.pop('backbone')
channels = student.sentinel.hidden_size
max_iters = 1000
load = [
    dict(type='LoadImageFromFile', _scope_='kpu_mm'),
    dict(type='Resize', scale=(112, 112)),
    dict(type='PackInputs'),
]

model = dict(
    backbone=dict(_delete_=True, out_type='features', **student),
    tasks=dict(
        coco=dict(_delete_=True, **coco.model),
        ade20k=dict(_delete_=True, **ade20k.model),
        imagenet=dict(head=dict(in_channels=channels)),
    ),
)
train_dataloader = dict(
    coco=dict(_delete_=True, **coco.train_dataloader),
    ade20k=dict(_delete_=True, **ade20k.train_dataloader),
    imagenet=dict(batch_size=8, num_workers=1, dataset=dict(pipeline=load)),
)
val_dataloader = dict(
    coco=dict(_delete_=True, **coco.val_dataloader),
    ade20k=dict(_delete_=True, **ade20k.val_dataloader),
    imagenet=dict(num_workers=1, dataset=dict(pipeline=load)),
)
test_dataloader = val_dataloader

optim_wrapper = dict(type='OptimWrapper', optimizer=dict(lr=1e-3))
param_scheduler = dict(T_max=max_iters)
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
default_hooks = dict(logger=dict(interval=20), checkpoint=dict(interval=100))
del read, coco, ade20k, student
