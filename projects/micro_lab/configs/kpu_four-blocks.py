# An interaction block for each of the sentinel's four layers.
_base_ = './kpu.py'
model = dict(student=dict(num_interactions=4))
