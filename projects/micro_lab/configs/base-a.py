_base_ = './base-b.py'
dinov2 = _base_.model.student.sentinel
model = dict(
    student=dict(_delete_=True, type='kpu_mm.ViTBackbone', sentinel=dinov2, frozen='none'),
    teachers=dict(dinov2=dict(type='kpu_mm.DINOTeacher', source=dinov2)),
    streams=dict(dinov2='clip'),
)
# At the adapter's learning rate a whole ViT loses its pre-training: after 800
# iterations its loss for DINOv2 itself was 0.86 at 4e-3 and 0.10 at 4e-4.
optim_wrapper = dict(optimizer=dict(lr=4e-4))
