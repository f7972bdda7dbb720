_base_ = './kpu.py'
model = dict(terms=dict(s2t=1.0))
