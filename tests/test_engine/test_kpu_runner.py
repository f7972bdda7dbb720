import torch

from kpu_mm.engine.kpu_runner import is_whole


def test_is_whole(tmp_path):
    path = tmp_path / 'iter_1.pth'
    assert not is_whole(path)
    torch.save(dict(weight=torch.randn(100)), path)
    content = path.read_bytes()
    assert is_whole(path)
    for share in (0.0, 0.5, 0.99):
        path.write_bytes(content[: int(len(content) * share)])
        assert not is_whole(path)
