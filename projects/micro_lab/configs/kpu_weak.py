# Unification at a tenth of its weight.
_base_ = './kpu.py'
model = dict(terms=dict(s2t=1.0, t2s=0.1, rec=1.0))
