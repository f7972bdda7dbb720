_base_ = './kpu_vitb.py'
model = dict(balancer=dict(type='kpu_mm.TeacherDropBalancer'))
