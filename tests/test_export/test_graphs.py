"""Tracing a student, writing it in each format, and comparing it."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from kpu_mm.export import read_student
from kpu_mm.export.graphs import (
    CASES,
    RawStudent,
    export_program,
    largest_difference,
    open_onnx,
    write_graphs,
)

SIZES = ((1, 64, 64), (3, 33, 129), (2, 160, 70))
ALONE = """
import sys, torch
student = torch.export.load(sys.argv[1]).module()
for images, expected in torch.load(sys.argv[2]):
    outputs = student(images)
    assert list(outputs) == list(expected)
    for name, value in expected.items():
        torch.testing.assert_close(outputs[name], value, rtol=1e-4, atol=1e-4)
try:
    student(torch.zeros(1, 3, 32, 96))
except Exception:
    pass
else:
    raise SystemExit('32 rows passed')
assert not {'kpu_mm', 'transformers', 'mmengine'} & set(sys.modules)
"""


def images(*size):
    return torch.rand(size[0], 3, *size[1:]) * 255


@pytest.fixture(scope='module')
def written(tmp_path_factory, raw_student):
    folder = tmp_path_factory.mktemp('graphs')
    model = raw_student('dinov2')
    return folder, model, write_graphs(folder, model, ['onnx', 'program'])


@pytest.mark.slow
def test_onnxruntime_gives_the_same(written):
    import onnx

    folder, model, _ = written
    run = open_onnx(folder / 'student.onnx')
    # torch.export's limit of 33 pixels does not hold here
    for size in (*SIZES, (1, 32, 32)):
        x = images(*size)
        got, expected = run(x), model(x)
        assert list(got) == list(expected)
        for name, value in expected.items():
            torch.testing.assert_close(got[name], value, rtol=1e-4, atol=1e-4, msg=f'{name} {size}')
    proto = onnx.load(folder / 'student.onnx')
    assert proto.opset_import[0].version == 20
    sides = [d.dim_param for d in proto.graph.input[0].type.tensor_type.shape.dim]
    assert sides == ['batch', '', 'height', 'width']
    content = proto.SerializeToString()
    for path in (Path(torch.__file__), Path(__file__)):
        assert str(path.parents[1]).encode() not in content
    assert not any(node.metadata_props for node in proto.graph.node)


@pytest.mark.slow
def test_torch_alone_gives_the_same(written, tmp_path):
    folder, model, _ = written
    cases = [(x, model(x)) for x in (images(*size) for size in SIZES)]
    torch.save(cases, tmp_path / 'cases.pt')
    files = [str(folder / 'student.pt2'), str(tmp_path / 'cases.pt')]
    subprocess.run([sys.executable, '-c', ALONE, *files], check=True, cwd=tmp_path)


@pytest.mark.slow
def test_states_outputs_and_differences(written):
    _, _, stated = written
    assert stated['outputs'] == {
        'summary': 24,
        **{f'map_{stride}': 24 for stride in (4, 8, 16, 32)},
        'clip_summary': 5,
        'clip_map_0': 6,
    }
    differences = stated['largest_differences']
    assert set(differences) == {'student.onnx', 'student.pt2'}
    assert 0 < differences['student.onnx'] < 1e-4
    assert differences['student.pt2'] < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize('family', ['dinov2_with_registers', 'dinov3_vit'])
def test_other_families(family, raw_student):
    """DINOv2 itself is written and read again above."""
    model = raw_student(family)
    program = export_program(model)
    assert not any('stack_trace' in n.meta for n in program.graph.nodes)
    cases = (*CASES, (1, 64, 64), (2, 33, 70))
    assert largest_difference('x', program.module(), model, cases) < 1e-5


def test_names_what_student_and_links_give(distilled):
    student = read_student(distilled[0], distilled[1])
    link = student.link('other')
    images = torch.rand(2, 3, 50, 75) * 255
    with torch.no_grad():
        named = RawStudent(student.backbone, dict(other=link))(images)
        features = distilled[2].student.encode(images)
        projected = link.infer(features, (50, 75))
    expected = dict(summary=features.summary)
    for stride, m in zip((4, 8, 16, 32), features.maps, strict=True):
        expected[f'map_{stride}'] = m
    expected['other_summary'] = projected.summary
    expected['other_map_0'] = projected.maps[0]
    assert list(named) == list(expected)
    for name, value in expected.items():
        assert torch.equal(named[name], value), name


def fake(images):
    return dict(summary=images.mean((2, 3)), map_4=images / 255)


def test_largest_over_all_images_and_outputs():
    def off(images):
        # 5e-5 in values of up to 1, at one size only
        return dict(fake(images), map_4=images / 255 + 5e-5 * len(images))

    assert largest_difference('x', fake, fake) == 0
    got = largest_difference('x', off, fake, [(1, 8, 8)])
    assert got == pytest.approx(5e-5, rel=1e-2)
    with pytest.raises(RuntimeError, match=r"'map_4' for images \(3, 3, 8, 8"):
        largest_difference('x', off, fake, [(1, 8, 8), (3, 8, 8)])


def test_large_values_may_differ_more():
    def off(images):
        return dict(fake(images), summary=images.mean((2, 3)) + 1e-3)

    # of some 130: 8e-6
    assert largest_difference('x', off, fake, [(2, 9, 8)]) < 1e-5


@pytest.mark.parametrize(
    'wrong',
    [
        lambda images: dict(fake(images), more=images),
        lambda images: dict(fake(images), map_4=images[..., :-1]),
        lambda images: dict(fake(images), map_4=images * torch.nan),
    ],
)
def test_refuses(wrong):
    with pytest.raises(RuntimeError, match=r'student\.onnx .*not written'):
        largest_difference('student.onnx', wrong, fake, [(1, 8, 8)])
