# Base_b of the paper's ablation: the student learns to predict the teachers,
# and no more.
_base_ = './kpu_vitb.py'
model = dict(terms=dict(s2t=1.0))
