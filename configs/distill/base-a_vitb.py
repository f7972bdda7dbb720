# Base_a of the paper's ablation, AM-RADIO's recipe: DINOv2's ViT trained end
# to end, without an adapter, to predict DINOv2 and the two other teachers.
_base_ = './base-b_vitb.py'
model = dict(
    student=dict(
        _delete_=True, type='kpu_mm.ViTBackbone', sentinel='facebook/dinov2-base', frozen='none'
    ),
    teachers=dict(dinov2=dict(type='kpu_mm.DINOTeacher', source='facebook/dinov2-base')),
    # Which images DINOv2 sees is not given in the paper: CLIP's.
    streams=dict(dinov2='clip'),
)
# A plain ViT has no batch norms.
default_hooks = dict(norm_eval=None)
