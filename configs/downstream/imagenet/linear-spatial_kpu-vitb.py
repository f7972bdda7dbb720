# One linear layer on the summary and the mean of the map of stride 16. Not a
# measurement of the paper.
_base_ = './linear_kpu-vitb.py'
model = dict(backbone=dict(out_type='summary_spatial'), head=dict(in_channels=2 * 768))
