import torch
from torch import nn

from kpu_mm.models.backbones import KPUBackbone
from tools.analysis_tools.get_flops import count_flops, count_parameters, flops_by_part, part_of


def backbone(**kwargs):
    sentinel = dict(
        model_type='dinov2',
        hidden_size=48,
        num_hidden_layers=4,
        num_attention_heads=4,
        image_size=56,
        patch_size=14,
    )
    return KPUBackbone(sentinel, inplanes=8, **kwargs).eval()


def test_parameters_by_hand():
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2).requires_grad_(False))
    counts = count_parameters(model, lambda name: name.split('.')[0])
    assert counts == {'0': (16, 0), '1': (0, 10)}
    assert counts['0'].total == 16


def test_parts_of_the_backbone():
    model = backbone()
    counts = count_parameters(model)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert sum(c.trained for c in counts.values()) == trained
    everything = sum(p.numel() for p in model.parameters())
    assert sum(c.total for c in counts.values()) == everything
    assert counts['sentinel'].trained == 0
    for part, module in (
        ('spatial prior', model.prior),
        ('injectors', [b.injector for b in model.interactions]),
        ('extractors', [b.extractors for b in model.interactions]),
    ):
        modules = module if isinstance(module, list) else [module]
        expected = sum(p.numel() for m in modules for p in m.parameters())
        assert counts[part].total == expected
    assert part_of('norms.0.weight') == part_of('level_embed') == 'pyramid'


def test_flops_by_hand():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 5, 3, padding=1)

        def forward(self, images):
            x = self.conv(images).flatten(2).transpose(1, 2)[:, None]
            return nn.functional.scaled_dot_product_attention(x, x, x)

    counts = count_flops(Model(), torch.rand(2, 3, 4, 6))
    conv = 2 * 24 * 5 * 3 * 9
    # two products of 24 x 24 x 5
    assert counts == {'': conv + 2 * 2 * 24 * 24 * 5, 'conv': conv}


def test_flops_of_a_vit_and_its_adapter():
    model = backbone(num_interactions=2)
    counts = count_flops(model, torch.rand(1, 3, 56, 56))
    parts = flops_by_part(counts)
    assert sum(parts.values()) == counts['']
    c, n = 48, 17
    patches = 2 * 16 * c * 3 * 14 * 14
    layer = 2 * n * 12 * c * c + 2 * 2 * n * n * c
    assert parts['sentinel'] == patches + 4 * layer
    # one transposed convolution, 7 x 7 -> 14 x 14
    assert parts['pyramid'] == 2 * 49 * c * c * 4
    assert parts['spatial prior'] == counts['prior']
