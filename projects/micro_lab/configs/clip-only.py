_base_ = './kpu.py'
model = dict(teachers=dict(_delete_=True, clip=_base_.model.teachers.clip))
train_dataloader = dict(_delete_=True, clip=_base_.train_dataloader.clip)
