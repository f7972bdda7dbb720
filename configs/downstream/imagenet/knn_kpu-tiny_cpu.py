# A trial of k-NN on a CPU, with the data of linear_kpu-tiny_cpu.py:
#   --cfg-options test_dataloader.dataset.data_root=FOLDER
#       test_cfg.bank_dataloader.dataset.data_root=FOLDER
_base_ = ['./knn_kpu-vitb.py', '../../_base_/models/kpu_tiny.py']

pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=56),
    dict(type='PackInputs'),
]

model = dict(
    backbone=dict(
        _delete_=True,
        frozen='all',
        out_type='summary',
        **_base_.tiny_backbone,
    ),
    num_classes=10,
    data_preprocessor=dict(num_classes=10),
)
test_dataloader = dict(
    num_workers=1,
    dataset=dict(
        _delete_=True,
        type='CustomDataset',
        data_root='data/cifar10',
        data_prefix='val',
        pipeline=pipeline,
    ),
)
test_cfg = dict(
    bank_dataloader=dict(
        num_workers=1,
        dataset=dict(
            _delete_=True,
            type='CustomDataset',
            data_root='data/cifar10',
            data_prefix='train',
            pipeline=pipeline,
        ),
    )
)
