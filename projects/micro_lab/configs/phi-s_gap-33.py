# Base_b on targets that PHI-S has balanced.
_base_ = './base-b_gap-33.py'
model = dict(normalizer=dict(type='kpu_mm.PHISNormalizer'))
