# KPU on targets that PHI-S has balanced.
_base_ = './kpu_vitb.py'
model = dict(normalizer=dict(type='kpu_mm.PHISNormalizer'))
