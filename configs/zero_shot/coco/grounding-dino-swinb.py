# GroundingDINO itself, to compare with.
_base_ = './kpu-vitb.py'
model = dict(encoder=None)
