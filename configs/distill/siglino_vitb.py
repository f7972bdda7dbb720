# SigLino, the second of two stages: areas from 256 x 256 to 768 x 768, on 11.5 M
# images of SA-1B and 1.5 M of the web. Sizes, and how often each comes, are ours.
_base_ = './siglino-256_vitb.py'
max_iters = 90_000
train_dataloader = dict(
    packs=dict(
        dataset=dict(
            sizes=[256, 384, 512, 768],
            dataset=dict(
                sources=[
                    dict(type='kpu_mm.FolderSource', root='data/sa_1b'),
                    dict(type='kpu_mm.FolderSource', root='data/web_1.5m'),
                ],
                weights=[23, 3],
            ),
        )
    )
)
train_cfg = dict(max_iters=max_iters)
param_scheduler = dict(T_max=max_iters)
load_from = 'work_dirs/siglino-256_vitb/iter_50000.pth'
