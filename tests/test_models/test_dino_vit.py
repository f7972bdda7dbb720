import torch

from kpu_mm.models.dino_vit import DINOViT

TINY = dict(
    model_type='dinov2',
    hidden_size=24,
    num_hidden_layers=3,
    num_attention_heads=2,
    image_size=56,
    patch_size=14,
)


def test_spans_compose_to_the_whole_model():
    vit = DINOViT(TINY)
    images = torch.randn(2, 3, 42, 56)
    with torch.no_grad():
        tokens, grid, rope = vit.embed(images)
        for start, stop in ((0, 1), (1, 3)):
            tokens = vit.run(tokens, rope, start, stop)
        expected = vit.model(images).last_hidden_state
    assert grid == (3, 4)
    assert torch.equal(vit.norm(tokens), expected)
    with torch.no_grad():
        summary, m = vit(images)
    assert torch.equal(summary, expected[:, 0])
    assert torch.equal(m.flatten(2).mT, expected[:, 1:])


def test_checksum_sees_every_weight_that_is_used():
    vit = DINOViT(TINY)
    before = vit.checksum()
    vit.model.embeddings.mask_token.data += 1
    assert vit.checksum() == before
    vit.model.encoder.layer[1].mlp.fc1.bias.data[3] += 1
    assert vit.checksum() != before


def test_always_in_eval_mode():
    vit = DINOViT(TINY).train()
    assert not any(m.training for m in vit.modules())
