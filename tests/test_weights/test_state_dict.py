import hashlib

import torch

from kpu_mm.weights.state_dict import checksum, json_from_tensor, json_to_tensor


def test_text_of_any_language_comes_back():
    value = {'a': [1, 2.5, None], 'ß': '学生'}
    state = json_to_tensor(value)
    assert state.dtype == torch.uint8 and state.ndim == 1
    assert json_from_tensor(state) == value


def test_order_and_type_do_not_matter_values_do():
    a, b = torch.randn(3, 4), torch.randn(5).bfloat16()
    expected = checksum([a, b])
    assert checksum([b.float(), a.clone()]) == expected
    assert checksum([a.T.contiguous().T, b]) == expected  # layout
    a[2, 1] += 1e-6
    assert checksum([a, b]) != expected


def test_is_sha256_of_sorted_digests():
    a = torch.tensor([1.0, 2.0])
    digest = hashlib.sha256(bytes.fromhex('0000803f00000040')).digest()
    assert checksum([a]) == hashlib.sha256(digest).hexdigest()
