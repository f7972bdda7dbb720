# A trial of k-NN on a CPU, with the data of linear_kpu-tiny_cpu.py:
#   --cfg-options test_dataloader.dataset.data_root=FOLDER
#       test_cfg.bank_dataloader.dataset.data_root=FOLDER
_base_ = [
    './knn_kpu-vitb.py',
    '../../_base_/models/kpu_tiny.py',
    '../../_base_/datasets/small_folders.py',
]

model = dict(
    backbone=dict(_delete_=True, frozen='all', out_type='summary', **_base_.tiny_backbone),
    num_classes=10,
    data_preprocessor=dict(num_classes=10),
)
test_dataloader = dict(num_workers=1, dataset=dict(_delete_=True, **_base_.small_val))
test_cfg = dict(
    bank_dataloader=dict(num_workers=1, dataset=dict(_delete_=True, **_base_.small_train))
)
