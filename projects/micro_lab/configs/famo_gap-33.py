_base_ = './kpu_gap-33.py'
model = dict(balancer=dict(type='kpu_mm.FAMOBalancer'))
