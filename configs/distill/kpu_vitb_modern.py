# KPU with models of 2024 and 2025: DINOv3 as the sentinel, SigLIP 2 in the
# place of CLIP, MM-GroundingDINO in that of GroundingDINO, and SAM 2 as a third
# teacher. The choice, and all that follows from it, is ours; the rest is the
# paper's run. SAM 3 is left out: transformers has it from version 5 on.
_base_ = './kpu_vitb.py'
clip, whole = _base_.train_dataloader.clip, _base_.train_dataloader.grounding_dino
crop = clip.dataset.pipeline
model = dict(
    student=dict(sentinel='facebook/dinov3-vitb16-pretrain-lvd1689m'),
    teachers=dict(
        _delete_=True,
        siglip=dict(type='kpu_mm.CLIPTeacher', model='ViT-B-16-SigLIP2-256', pretrained='webli'),
        grounding_dino=dict(
            type='kpu_mm.GroundingDINOTeacher',
            source='openmmlab-community/mm_grounding_dino_base_all',
        ),
        # It sees every image at the one size of its training.
        sam=dict(
            type='kpu_mm.TransformersTeacher',
            source='facebook/sam2.1-hiera-base-plus',
            resolution=(1024, 1024),
        ),
    ),
    # the student sees the whole images once for both
    streams=dict(sam='grounding_dino'),
)
train_dataloader = dict(
    _delete_=True,
    siglip=dict(clip, dataset=dict(clip.dataset, pipeline=[dict(crop[0], size=256), *crop[1:]])),
    grounding_dino=whole,
)
