import subprocess
import sys
from pathlib import Path

import pytest
import torch

from kpu_mm.export.graphs import write_graphs
from kpu_mm.export.onnx_graph import open_onnx

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
            torch.testing.assert_close(
                got[name], value, rtol=1e-4, atol=1e-4, msg=f'{name} {size}'
            )
    proto = onnx.load(folder / 'student.onnx')
    assert proto.opset_import[0].version == 20
    sides = [
        d.dim_param for d in proto.graph.input[0].type.tensor_type.shape.dim
    ]
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
    subprocess.run(
        [sys.executable, '-c', ALONE, *files], check=True, cwd=tmp_path
    )


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
