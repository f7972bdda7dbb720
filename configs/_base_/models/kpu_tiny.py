# A small student with random weights, for trials on a CPU.
tiny_backbone = dict(
    type='kpu_mm.KPUBackbone',
    sentinel=dict(
        model_type='dinov2',
        hidden_size=64,
        num_hidden_layers=4,
        num_attention_heads=4,
        image_size=112,
        patch_size=14,
    ),
    inplanes=32,
    norm_cfg=dict(type='GN', num_groups=8),
)
