_base_ = './kpu.py'
model = dict(balancer=dict(type='kpu_mm.FAMOBalancer'))
