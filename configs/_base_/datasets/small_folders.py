# Images of ten classes in one folder each, below train/ and val/, for trials
# on a CPU.
small_pipeline = [
    dict(type='LoadImageFromFile', _scope_='kpu_mm'),
    dict(type='Resize', scale=56),
    dict(type='PackInputs'),
]
small_train = dict(
    type='kpu_mm.CustomDataset',
    _scope_='mmpretrain',
    data_root='data/cifar10',
    data_prefix='train',
    pipeline=small_pipeline,
)
small_val = dict(
    type='kpu_mm.CustomDataset',
    _scope_='mmpretrain',
    data_root='data/cifar10',
    data_prefix='val',
    pipeline=small_pipeline,
)
