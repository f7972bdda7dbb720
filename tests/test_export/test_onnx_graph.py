import pytest

from kpu_mm.export import onnx_graph


def test_says_what_to_install(monkeypatch):
    onnx_graph.check_onnx()
    monkeypatch.setattr(
        onnx_graph, 'find_spec', lambda name: None if 'rt' in name else name
    )
    monkeypatch.setattr(onnx_graph, 'NEEDED', ('onnx', 'ort'))
    with pytest.raises(ModuleNotFoundError, match='`pip install ort`'):
        onnx_graph.check_onnx()
