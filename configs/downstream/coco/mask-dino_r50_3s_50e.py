_base_ = './mask-dino_r50_4s_50e.py'
model = dict(
    bbox_head=dict(
        pixel_decoder=dict(extra_level=False, order='coarse_to_fine', ffn_channels=1024),
        queries=dict(box_init='bitmask'),
    )
)
