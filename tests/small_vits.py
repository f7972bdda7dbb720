"""A small model of each family of ViTs that can be a sentinel."""

from typing import Any

SMALL: dict[str, Any] = dict(
    hidden_size=48,
    num_hidden_layers=3,
    num_attention_heads=2,
    intermediate_size=40,
    image_size=56,
    patch_size=14,
)
TRANSFORMERS: dict[str, dict[str, Any]] = {
    'dinov2': {},
    'dinov2_with_registers': dict(num_register_tokens=3),
    'dinov3_vit': dict(num_register_tokens=2),
    'vit': {},
    'deit': {},
    'clip_vision_model': {},
    'siglip_vision_model': {},
}
# timm's names of architectures, all with fewer and smaller layers
TIMM = {
    'MAE': 'vit_base_patch16_224.mae',
    'CLIP': 'vit_base_patch32_clip_224',
    'SigLIP 2': 'vit_base_patch16_siglip_224',
    'registers, mean': 'vit_medium_patch16_reg4_gap_256',
    'DeiT, distilled': 'deit_base_distilled_patch16_224',
    'DeiT III': 'deit3_base_patch16_224',
    'EVA-02': 'eva02_base_patch14_224',
    'EVA-02 CLIP': 'eva02_base_patch16_clip_224',
    'DINOv3': 'vit_small_patch16_dinov3',
    'RoPE of layers': 'vit_small_patch16_rope_mixed_224',
    'BEiT': 'beit_base_patch16_224',
    'RADIO': 'naflexvit_base_patch16_radio_v3',
    'RADIO, classic': 'vit_base_patch16_radio_v3',
    'SigLIP 2, NaFlex': 'naflexvit_base_patch16_siglip',
}


def small_vit(family: str, width: int = 48) -> dict[str, Any]:
    """Its configuration, for random weights.

    Args:
        family: A key of TRANSFORMERS or TIMM.
        width: Channels of the tokens.
    """
    if family in TRANSFORMERS:
        own = dict(hidden_size=width, model_type=family)
        return SMALL | own | TRANSFORMERS[family]
    args = dict(depth=3, embed_dim=width, num_heads=2)
    return dict(architecture=TIMM[family], model_args=args)
