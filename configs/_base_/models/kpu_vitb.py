model = dict(
    type='kpu_mm.KPUDistiller',
    student=dict(
        type='kpu_mm.KPUBackbone', sentinel='facebook/dinov2-base', norm_cfg=dict(type='SyncBN')
    ),
    teachers=dict(
        # Sizes of the teachers are not given in the paper; docs/distillation.md
        # says what speaks for GroundingDINO base.
        clip=dict(type='kpu_mm.CLIPTeacher', model='ViT-B-16-quickgelu', pretrained='openai'),
        grounding_dino=dict(
            type='kpu_mm.GroundingDINOTeacher', source='IDEA-Research/grounding-dino-base'
        ),
    ),
    # Hidden width is not given in the paper.
    projector=dict(type='kpu_mm.MLPProjector', hidden=768),
)
