import pytest
import torch

from kpu_mm.models.backbones import Sentinel

TINY = dict(
    model_type='dinov2',
    hidden_size=24,
    num_hidden_layers=3,
    num_attention_heads=2,
    image_size=56,
    patch_size=14,
)


@pytest.mark.parametrize(
    ('size', 'expected'),
    [((5, 14), (14, 14)), ((20, 21), (14, 28)), ((56, 62), (56, 56))],
)
def test_nearest_multiple_of_the_patch(size, expected):
    assert Sentinel(TINY).fit_size(*size) == expected


def test_spans_compose_to_the_whole_model():
    sentinel = Sentinel(TINY)
    images = torch.randn(2, 3, 42, 56)
    with torch.no_grad():
        tokens, grid, rope = sentinel.embed(images)
        for start, stop in ((0, 1), (1, 3)):
            tokens = sentinel.run(tokens, rope, start, stop)
        expected = sentinel.model(images).last_hidden_state
    assert grid == (3, 4)
    assert torch.equal(sentinel.norm(tokens), expected)


def test_checksum_sees_every_weight_that_is_used():
    sentinel = Sentinel(TINY)
    before = sentinel.checksum()
    sentinel.model.embeddings.mask_token.data += 1
    assert sentinel.checksum() == before
    sentinel.model.encoder.layer[1].mlp.fc1.bias.data[3] += 1
    assert sentinel.checksum() != before


def test_always_in_eval_mode():
    sentinel = Sentinel(TINY).train()
    assert not any(m.training for m in sentinel.modules())
