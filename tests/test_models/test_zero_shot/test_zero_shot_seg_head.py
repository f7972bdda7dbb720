import open_clip
import pytest
import torch
import torch.nn.functional as F

from kpu_mm.models import ZeroShotSegHead
from kpu_mm.models.teachers import CLIPTeacher

CLASSES = ['cat', 'dog', 'red car']
TEMPLATES = ['a photo of a {}.']


def build(folder, classes=CLASSES):
    return ZeroShotSegHead(
        clip=dict(model=f'local-dir:{folder}'),
        classes=classes,
        templates=TEMPLATES,
    )


@torch.no_grad()
def test_teacher_s_own_map_gives_its_own_result(clip_dir):
    """open_clip's patch tokens through its own projection."""
    images = torch.rand(2, 3, 64, 64) * 255
    teacher = CLIPTeacher(f'local-dir:{clip_dir}')
    logits = build(clip_dir)(teacher(images).maps)
    model = open_clip.create_model(f'local-dir:{clip_dir}').eval()
    model.requires_grad_(False)
    model.visual.output_tokens = True
    _, tokens = model.visual(teacher.prepare(images)[0])
    text = open_clip.build_zero_shot_classifier(
        model, open_clip.get_tokenizer('ViT-B-16'), CLASSES, TEMPLATES
    )
    tokens = F.normalize(tokens @ model.visual.proj, dim=-1)
    expected = model.logit_scale.exp() * tokens @ text
    assert torch.equal(logits.flatten(2).transpose(1, 2), expected)
    assert expected.argmax(-1).unique().numel() > 1


@torch.no_grad()
def test_siglip_s_pooling_of_one_value(siglip_text_dir):
    """Attention over one token is that token's value, whatever the query."""
    images = torch.rand(1, 3, 160, 160) * 255
    teacher = CLIPTeacher(f'local-dir:{siglip_text_dir}')
    m = teacher(images).maps[0]
    pool = teacher.visual.trunk.attn_pool
    value = pool.kv(m.flatten(2).transpose(1, 2)).chunk(2, -1)[1]
    value = pool.proj(value)
    value = value + pool.mlp(pool.norm(value))
    ours = teacher.to_text_space(m).flatten(2).transpose(1, 2)
    torch.testing.assert_close(ours, value, rtol=1e-4, atol=1e-5)
    assert build(siglip_text_dir)((m,)).shape == (1, 3, 10, 10)


@torch.no_grad()
def test_summary_of_an_image_of_one_token(clip_dir):
    """The read-out of a map is that of the pooled token."""
    teacher = CLIPTeacher(f'local-dir:{clip_dir}', with_text=True)
    pooled = {}
    norm = teacher.visual.ln_post
    hook = norm.register_forward_hook(
        lambda *args: pooled.update(token=args[-1][:, 0])
    )
    summary = teacher(torch.rand(1, 3, 64, 64) * 255).summary
    hook.remove()
    read = teacher.to_text_space(pooled['token'][..., None, None])
    torch.testing.assert_close(read[..., 0, 0], summary)


@torch.no_grad()
def test_pooling_of_one_value_in_a_resnet(resnet_clip_dir):
    """Attention over alike tokens without positions gives their value."""
    teacher = CLIPTeacher(f'local-dir:{resnet_clip_dir}')
    pool = teacher.visual.attnpool
    pool.positional_embedding.zero_()
    token = torch.randn(1, teacher.channels[0], 1, 1)
    alike = token.expand(-1, -1, 2, 2)
    read = teacher.to_text_space(alike)
    assert read.shape == (1, 32, 2, 2)
    torch.testing.assert_close(read[..., 0, 1], pool(alike))


def test_sizes_of_windows_and_of_whole_images(clip_dir):
    head = build(clip_dir)
    maps = (torch.randn(1, 64, 4, 6),)
    window = dict(img_shape=torch.Size([50, 90]), pad_shape=(99, 99))
    assert head.predict(maps, [window], None).shape == (1, 3, 50, 90)
    padded = dict(img_shape=(50, 90), pad_shape=(64, 96, 3))
    assert head.predict(maps, [padded], None).shape == (1, 3, 64, 96)
    plain = dict(img_shape=(50, 90))
    assert head.predict(maps, [plain], None).shape == (1, 3, 50, 90)
    assert head.out_channels == 3


def test_one_class_is_no_choice(clip_dir):
    head = build(clip_dir, ['cat'])
    maps = (torch.randn(1, 64, 4, 4),)
    assert head(maps).shape == (1, 1, 4, 4)
    with pytest.raises(ValueError, match="every pixel would be 'cat'"):
        head.predict(maps, [dict(img_shape=(64, 64))], None)
