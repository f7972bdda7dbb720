# For a sentinel that is trained too: rates fall towards the image by 0.7 from
# layer to layer, as ViT-Adapter trains DINOv2-B.
layer_decay = dict(
    constructor='kpu_mm.LayerDecayConstructor',
    paramwise_cfg=dict(
        layer_decay_rate=0.7,
        flat_decay_mult=0.0,
        norm_decay_mult=0.0,
        bias_decay_mult=0.0,
        custom_keys=dict(
            cls_token=dict(decay_mult=0.0),
            position_embeddings=dict(decay_mult=0.0),
            level_embed=dict(decay_mult=0.0),
        ),
    ),
)
