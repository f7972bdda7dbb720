_base_ = './kpu_gap-33.py'
model = dict(terms=dict(s2t=1.0, t2s=0.1, rec=1.0))
