import torch

from kpu_mm.models.json_state import from_tensor, to_tensor


def test_text_of_any_language_comes_back():
    value = {'a': [1, 2.5, None], 'ß': '学生'}
    state = to_tensor(value)
    assert state.dtype == torch.uint8 and state.ndim == 1
    assert from_tensor(state) == value
