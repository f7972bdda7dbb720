import subprocess
import sys

import pytest
import torch

from kpu_mm.export import export_program
from kpu_mm.export.program import _check
from kpu_mm.models.backbones import KPUBackbone

SENTINELS = {
    # 5 x 5 positions: images of 64 and 70 pixels meet the shortcut of
    # transformers for the size of pre-training
    'dinov2': dict(image_size=70, patch_size=14),
    'dinov2_with_registers': dict(
        image_size=70, patch_size=14, num_register_tokens=2
    ),
    'dinov3_vit': dict(image_size=64, patch_size=16, intermediate_size=96),
}
ALONE = """
import sys, torch
student = torch.export.load(sys.argv[1]).module()
cases = torch.load(sys.argv[2])
for images, expected in cases:
    summary, maps = student(images)
    for got, wanted in zip((summary, *maps), expected, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4)
try:
    student(torch.zeros(1, 3, 80, 96))
except Exception:
    pass
else:
    raise SystemExit('80 rows passed')
assert not {'kpu_mm', 'transformers', 'mmengine'} & set(sys.modules)
"""


@pytest.mark.parametrize(
    'family',
    [
        'dinov2',
        pytest.param('dinov2_with_registers', marks=pytest.mark.slow),
        pytest.param('dinov3_vit', marks=pytest.mark.slow),
    ],
)
def test_torch_alone_gives_the_same(family, tmp_path):
    torch.manual_seed(0)
    sentinel = dict(
        model_type=family,
        hidden_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        **SENTINELS[family],
    )
    backbone = KPUBackbone(sentinel, num_interactions=2, inplanes=8).eval()
    backbone.requires_grad_(False)
    for p in backbone.parameters():
        p += 0.1 * torch.randn_like(p)
    program = export_program(backbone)
    assert not any('stack_trace' in n.meta for n in program.graph.nodes)
    torch.export.save(program, tmp_path / 'student.pt2')

    cases = []
    for batch, height, width in ((1, 64, 64), (3, 96, 128), (2, 160, 64)):
        images = torch.rand(batch, 3, height, width) * 255
        features = backbone.extract(backbone.normalise(images))
        cases.append((images, (features.summary, *features.maps)))
    torch.save(cases, tmp_path / 'cases.pt')
    subprocess.run(
        [
            sys.executable,
            '-c',
            ALONE,
            str(tmp_path / 'student.pt2'),
            str(tmp_path / 'cases.pt'),
        ],
        check=True,
        cwd=tmp_path,
    )


def test_a_wrong_program_is_refused():
    def model(images):
        return images.mean((2, 3)), (images,)

    class Program:
        def module(self):
            return lambda images: (images.mean((2, 3)), (images + 1,))

    images = torch.rand(1, 3, 2, 2)
    with pytest.raises(RuntimeError, match='differs from the student'):
        _check(Program(), model, images)
