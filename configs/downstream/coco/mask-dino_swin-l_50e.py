_base_ = './mask-dino_r50_4s_50e.py'
depths = [2, 2, 18, 2]
url = 'https://github.com/SwinTransformer/storage/releases/download/v1.0.0/'

model = dict(
    backbone=dict(
        _delete_=True,
        type='mmdet.SwinTransformer',
        pretrain_img_size=384,
        embed_dims=192,
        depths=depths,
        num_heads=[6, 12, 24, 48],
        window_size=12,
        drop_path_rate=0.3,
        convert_weights=True,
        init_cfg=dict(type='Pretrained', checkpoint=url + 'swin_large_patch4_window12_384_22k.pth'),
    ),
    bbox_head=dict(
        pixel_decoder=dict(in_channels=[192, 384, 768, 1536], input_levels=4),
        queries=dict(box_init='bitmask'),
    ),
)

# MMEngine takes a key of the backbone for all that lies below it, so norms
# and position tables are listed one by one.
no_decay = dict(lr_mult=0.1, decay_mult=0.0)
optim_wrapper = dict(
    paramwise_cfg=dict(
        custom_keys={
            'backbone.patch_embed.norm': no_decay,
            'backbone.norm': no_decay,
            'relative_position_bias_table': no_decay,
            **{
                f'backbone.stages.{stage}.blocks.{block}.norm': no_decay
                for stage, depth in enumerate(depths)
                for block in range(depth)
            },
            **{
                f'backbone.stages.{stage}.downsample.norm': no_decay
                for stage in range(len(depths) - 1)
            },
        }
    )
)
