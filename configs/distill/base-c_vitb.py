# Base_c of the paper's ablation: unification, but no reconstruction.
_base_ = './kpu_vitb.py'
model = dict(terms=dict(s2t=1.0, t2s=1.0))
