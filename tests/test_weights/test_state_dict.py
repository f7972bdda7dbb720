import hashlib

import torch
from torch import nn

from kpu_mm.weights.state_dict import checksum, json_from_tensor, json_to_tensor, settle_unused


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


def test_what_no_prediction_depends_on():
    model = nn.ModuleDict(dict(dn_query_generator=nn.Linear(2, 1), text=nn.Linear(2, 1)))
    given = {name: torch.ones_like(value) for name, value in model.text.state_dict().items()}
    state = {f'text.{name}': value for name, value in given.items()}
    state['text.position_ids'] = torch.arange(3)
    settle_unused(model, state)
    own = model.dn_query_generator.weight.clone()
    model.load_state_dict(state)
    assert torch.equal(model.dn_query_generator.weight, own)
    assert torch.equal(model.text.weight, given['weight'])
    # what is there, and what a model has, is loaded
    state['dn_query_generator.bias'] = torch.ones(1)
    model.text.register_buffer('position_ids', torch.zeros(3))
    state['text.position_ids'] = torch.arange(3)
    settle_unused(model, state)
    model.load_state_dict(state)
    assert model.dn_query_generator.bias.item() == model.text.position_ids[1] == 1
    del state['text.weight']
    settle_unused(model, state)
    assert 'text.weight' not in state


def test_is_sha256_of_sorted_digests():
    a = torch.tensor([1.0, 2.0])
    digest = hashlib.sha256(bytes.fromhex('0000803f00000040')).digest()
    assert checksum([a]) == hashlib.sha256(digest).hexdigest()
