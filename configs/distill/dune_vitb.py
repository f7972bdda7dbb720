# DUNE (https://arxiv.org/abs/2503.14405), the first of two stages, at
# 336 x 336: teachers of unlike tasks, a transformer projector for each, targets
# normalised by each batch's own mean and deviation, teacher dropping and
# transforms as in UNIC. Numbers are those of the authors' code, on 4 GPUs with
# 128 images each; the number of GPUs is not given. What differs: MASt3R's encoder
# is in no library, so DPT's ViT-L/16, which was trained for depth, takes its
# place; the last block's features have passed the final norm; gradients are
# clipped by their common norm, not each weight's by its own; a third of the
# images comes from each group of data on average, not in each batch. Multi-HMR's
# encoder is put where `checkpoint` says, see docs/recipes.md.
_base_ = './unic_vitb.py'
# 100 times as many images as ImageNet-1K has, 512 a step; a fifth is warm-up
max_iters = 250_228
warmup = 50_045
vitb16, unic = _base_.vitb16, _base_.train_dataloader.images.dataset.pipeline

model = dict(
    student=dict(
        vitb16,
        _delete_=True,
        sentinel=dict(
            vitb16.sentinel,
            model_type='dinov2_with_registers',
            image_size=336,
            patch_size=14,
            num_register_tokens=4,
            layerscale_value=1e-4,
        ),
    ),
    # Each gives 24 x 24 tokens, as the student does.
    teachers=dict(
        _delete_=True,
        dinov2=dict(type='kpu_mm.DINOTeacher', source='facebook/dinov2-with-registers-large'),
        depth=dict(
            type='kpu_mm.TransformersTeacher', source='Intel/dpt-large', resolution=(384, 384)
        ),
        multi_hmr=dict(
            type='kpu_mm.TimmTeacher',
            model='vit_large_patch14_dinov2.lvd142m',
            checkpoint='checkpoints/multi-hmr_vitl14.safetensors',
            options=dict(dynamic_img_size=True),
            summary=False,
        ),
    ),
    streams=dict(_delete_=True, dinov2='images', depth='images', multi_hmr='images'),
    normalizer=dict(_delete_=True, type='kpu_mm.MovingNormalizer', updates=max_iters),
    projector=dict(_delete_=True, type='kpu_mm.TransformerProjector', num_heads=12),
    # half cosine, half smooth L1; the mean over what a teacher has of CLS and patches
    align=dict(summary=0.5, summary_smooth_l1=0.5, cosine=0.5, smooth_l1=0.5, average=True),
)
train_dataloader = dict(
    images=dict(
        num_workers=8,
        dataset=dict(
            # the teachers' own data: 3, 12 and 4 data sets in the paper
            sources=[
                dict(type='kpu_mm.FolderSource', root=f'data/dune/{group}')
                for group in ('generic', '3d', 'human')
            ],
            weights=[1, 1, 1],
            pipeline=[dict(unic[0], size=336, scale=(0.4, 1.0)), *unic[1:]],
        ),
    )
)
optim_wrapper = dict(optimizer=dict(eps=1e-15), clip_grad=dict(max_norm=1.0))
param_scheduler = [
    dict(_base_.param_scheduler[0], end=warmup),
    dict(_base_.param_scheduler[1], T_max=max_iters - warmup, begin=warmup),
]
train_cfg = dict(max_iters=max_iters)
