# The paper's run with GroundingDINO for its only teacher.
_base_ = './kpu_vitb.py'
model = dict(teachers=dict(_delete_=True, grounding_dino=_base_.model.teachers.grounding_dino))
train_dataloader = dict(_delete_=True, grounding_dino=_base_.train_dataloader.grounding_dino)
