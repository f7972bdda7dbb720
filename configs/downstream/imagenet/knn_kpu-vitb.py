# k-NN without training, for tools/test.py: DINO's weighted vote. Not a
# measurement of the paper.
_base_ = './linear_kpu-vitb.py'

bank = _base_.imagenet_val_dataloader

model = dict(
    _delete_=True,
    type='kpu_mm.KNNClassifier',
    backbone=_base_.model.backbone,
    num_classes=1000,
    data_preprocessor=_base_.model.data_preprocessor,
)
model_wrapper_cfg = dict(type='kpu_mm.Unwrapped')
test_cfg = dict(
    type='kpu_mm.KNNTestLoop', bank_dataloader=dict(bank, dataset=dict(bank.dataset, split='train'))
)
del bank
