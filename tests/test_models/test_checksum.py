import hashlib

import torch

from kpu_mm.models.checksum import checksum


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
