_base_ = './kpu_vitb.py'
model = dict(student=dict(sentinel='facebook/dinov2-large'))
