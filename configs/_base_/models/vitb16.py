# A ViT-B/16 of DINOv2's architecture with random weights, trained end to end
# without an adapter.
vitb16 = dict(
    type='kpu_mm.ViTBackbone',
    sentinel=dict(
        model_type='dinov2',
        hidden_size=768,
        num_hidden_layers=12,
        num_attention_heads=12,
        image_size=224,
        patch_size=16,
    ),
    frozen='none',
)
