# Mask2Former (https://arxiv.org/abs/2112.01527) on a frozen DINOv2 with a
# trained ViT-Adapter: MMDetection's config with another backbone.
_base_ = [
    'mmdet::mask2former/mask2former_r50_8xb2-lsj-50e_coco.py',
    '../../_base_/models/dinov2_adapter.py',
]
custom_imports = dict(imports=['kpu_mm'])
runner_type = 'kpu_mm.KPURunner'
env_cfg = dict(tf32=True)

model = dict(
    backbone=dict(_delete_=True, **_base_.backbone), panoptic_head=dict(in_channels=[768] * 4)
)
# Without MMDetection's lower rate for a pre-trained backbone: what is trained
# of this one is new.
embeddings = dict(decay_mult=0.0)
optim_wrapper = dict(
    paramwise_cfg=dict(
        custom_keys=dict(
            _delete_=True, query_embed=embeddings, query_feat=embeddings, level_embed=embeddings
        )
    )
)
train_cfg = dict(type='kpu_mm.ResumableTrainLoop')
default_hooks = dict(sampler_seed=None, machine=dict(type='kpu_mm.MachineCheckHook'))
train_dataloader = dict(batch_sampler=None)
