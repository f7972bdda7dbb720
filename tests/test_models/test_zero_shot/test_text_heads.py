"""Text embeddings of class names, and the heads over them."""

import json

import open_clip
import pytest
import torch
import torch.nn.functional as F
from mmengine.structures import BaseDataElement
from torch import nn

from kpu_mm.models import ZeroShotClsHead, ZeroShotSegHead
from kpu_mm.models.teachers import CLIPTeacher
from kpu_mm.models.zero_shot.text_heads import TextHead

CLASSES = ['cat', 'dog', 'red car']
TEMPLATES = ['a photo of a {}.', 'my {}.']


@pytest.fixture(scope='module')
def head(clip_dir):
    return TextHead(dict(model=f'local-dir:{clip_dir}'))


@pytest.fixture
def counted(monkeypatch):
    """How often embeddings are computed."""
    calls = []
    compute = TextHead._compute

    def count(self, *args):
        calls.append(args)
        return compute(self, *args)

    monkeypatch.setattr(TextHead, '_compute', count)
    return calls


def test_equals_prompts_by_hand(head, clip_dir):
    """Mean of unit embeddings, made unit again."""
    text = head.embed(['cat', 'red car'], TEMPLATES)
    model = open_clip.create_model(f'local-dir:{clip_dir}').eval()
    tokenizer = open_clip.get_tokenizer('ViT-B-16')
    for column, name in zip(text.T, ['cat', 'red car'], strict=True):
        prompts = tokenizer([t.format(name) for t in TEMPLATES])
        with torch.no_grad():
            embedded = model.encode_text(prompts)
        mean = (embedded / embedded.norm(dim=1, keepdim=True)).mean(0)
        torch.testing.assert_close(column, mean / mean.norm())


def test_names_and_templates_are_text(head):
    """Braces in a name stay, and a template may name the class twice."""
    plain = head.embed(['{x} y'], ['a {}, my {}'])
    torch.testing.assert_close(plain, head.embed(['a {x} y, my {x} y'], ['{}']))


def test_names_that_the_text_tower_does_not_know(siglip_text_dir):
    own = ZeroShotClsHead(dict(model=f'local-dir:{siglip_text_dir}'), ['cat'], ['a photo of a {}'])
    with pytest.raises(ValueError, match="knows no word of 'zebra'; write it in other words"):
        own.embed(['cat', 'zebra'], own.templates)
    with pytest.warns(UserWarning, match=r"does not know \['fat'\] in 'fat cat'"):
        own.embed(['fat cat'], own.templates)


def test_computes_each_list_once(head, counted):
    first = head.embed(['cat', 'dog'], TEMPLATES)
    assert head.embed(('cat', 'dog'), tuple(TEMPLATES)) is first
    assert len(counted) == 1
    head.embed(['dog', 'cat'], TEMPLATES)
    head.embed(['cat', 'dog'], TEMPLATES[:1])
    assert len(counted) == 3


def test_keeps_lists_for_the_next_run(clip_dir, siglip_text_dir, counted, tmp_path):
    clip, siglip = (dict(model=f'local-dir:{d}') for d in (clip_dir, siglip_text_dir))
    texts = tmp_path / 'texts'
    first = TextHead(clip, cache_dir=texts).embed(['cat'], TEMPLATES)
    again = TextHead(clip, cache_dir=texts).embed(['cat'], TEMPLATES)
    assert len(counted) == 1 and torch.equal(first, again)
    # another model's embeddings are others
    TextHead(siglip, cache_dir=texts).embed(['cat'], TEMPLATES)
    assert len(counted) == 2
    assert len(list(texts.iterdir())) == 2


def test_prompt_over_the_limit(head, siglip_text_dir):
    siglip = TextHead(dict(model=f'local-dir:{siglip_text_dir}'))
    for limit, tower in ((77, head), (64, siglip)):
        fits = ' '.join(['cat'] * (limit - 2))  # with its two special tokens
        assert tower.embed([fits], ['{}']).shape[1] == 1
        with pytest.raises(ValueError, match=f'text tower takes, {limit};'):
            tower.embed(['dog', fits + ' cat'], ['{}'])


def test_follows_its_owner(clip_dir):
    head = TextHead(dict(model=f'local-dir:{clip_dir}'))
    head.embed(['cat'], TEMPLATES)
    head.to('meta')
    assert head.model.logit_scale.device.type == 'meta'
    assert head.embed(['cat'], TEMPLATES).device.type == 'meta'


@pytest.mark.parametrize('kind', ['clip', 'siglip_text'])
def test_cosines_of_logits(kind, request):
    """Without the scale, and for a SigLIP without the bias."""
    folder = request.getfixturevalue(f'{kind}_dir')
    head = TextHead(dict(model=f'local-dir:{folder}'))
    text = head.embed(['cat', 'red car'], TEMPLATES)
    features = torch.randn(3, 5, len(text))
    expected = torch.cosine_similarity(features[..., None], text[None, None], dim=2)
    head.set_classes(['cat', 'red car'], TEMPLATES)
    cosine = head.cosine(head.logits(features))
    torch.testing.assert_close(cosine, expected, rtol=1e-4, atol=1e-6)


def build(folder, kind=ZeroShotClsHead, classes=CLASSES):
    return kind(clip=dict(model=f'local-dir:{folder}'), classes=classes, templates=TEMPLATES)


def untouched(folder, images):
    """open_clip alone, as its documentation classifies."""
    model = open_clip.create_model(f'local-dir:{folder}').eval()
    # a weight that asks for gradients selects another attention kernel
    model.requires_grad_(False)
    config = json.loads((folder / 'open_clip_config.json').read_text())
    mean, std = (
        torch.tensor(config['preprocess_cfg'][key]).view(3, 1, 1) for key in ('mean', 'std')
    )
    text = open_clip.build_zero_shot_classifier(
        model, open_clip.get_tokenizer(f'local-dir:{folder}'), CLASSES,
        TEMPLATES,
    )  # fmt: skip
    image = model.encode_image((images / 255 - mean) / std, normalize=True)
    logits = model.logit_scale.exp() * image @ text
    if model.logit_bias is None:
        return logits, logits.softmax(-1)
    return logits + model.logit_bias, (logits + model.logit_bias).sigmoid()


@torch.no_grad()
@pytest.mark.parametrize('kind, size', [('clip', 64), ('siglip_text', 160)])
def test_teacher_s_own_summary_gives_its_own_result(kind, size, request):
    folder = request.getfixturevalue(f'{kind}_dir')
    images = torch.randint(0, 256, (4, 3, size, size)).float()
    logits, scores = untouched(folder, images)
    head = build(folder)
    summary = CLIPTeacher(f'local-dir:{folder}')(images).summary
    assert torch.equal(head((summary,)), logits)
    assert logits.std() > 1e-3  # not all alike
    samples = head.predict((summary,))
    assert torch.equal(torch.stack([s.pred_score for s in samples]), scores)
    labels = torch.cat([s.pred_label for s in samples])
    assert torch.equal(labels, logits.argmax(-1))


def test_writes_into_the_given_samples(clip_dir):
    from mmpretrain.structures import DataSample

    given = [DataSample().set_gt_label(1), DataSample().set_gt_label(2)]
    out = build(clip_dir).predict((torch.randn(2, 32),), given)
    assert out[0] is given[0] and out[1].gt_label == 2
    assert isinstance(out[0], BaseDataElement)


def test_other_classes(clip_dir):
    head = build(clip_dir)
    x = torch.randn(2, 32)
    before = head((x,))
    head.set_classes(['dog', 'cat'], TEMPLATES)
    assert torch.equal(head((x,)).flip(1), before[:, :2])
    assert head.num_classes == 2
    with pytest.raises(ValueError, match='class list is empty'):
        head.set_classes([])


def test_no_weights_of_its_own(clip_dir):
    owner = nn.Sequential(build(clip_dir)).to(torch.float64)
    assert not list(owner.parameters()) and not owner.state_dict()
    assert owner[0].model.logit_scale.dtype == torch.float64


@torch.no_grad()
def test_teacher_s_own_map_gives_its_own_result(clip_dir):
    """open_clip's patch tokens through its own projection."""
    images = torch.rand(2, 3, 64, 64) * 255
    teacher = CLIPTeacher(f'local-dir:{clip_dir}')
    logits = build(clip_dir, ZeroShotSegHead)(teacher(images).maps)
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
    assert build(siglip_text_dir, ZeroShotSegHead)((m,)).shape == (1, 3, 10, 10)


@torch.no_grad()
def test_summary_of_an_image_of_one_token(clip_dir):
    """The read-out of a map is that of the pooled token."""
    teacher = CLIPTeacher(f'local-dir:{clip_dir}', with_text=True)
    pooled = {}
    norm = teacher.visual.ln_post
    hook = norm.register_forward_hook(lambda *args: pooled.update(token=args[-1][:, 0]))
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
    head = build(clip_dir, ZeroShotSegHead)
    maps = (torch.randn(1, 64, 4, 6),)
    window = dict(img_shape=torch.Size([50, 90]), pad_shape=(99, 99))
    assert head.predict(maps, [window], None).shape == (1, 3, 50, 90)
    padded = dict(img_shape=(50, 90), pad_shape=(64, 96, 3))
    assert head.predict(maps, [padded], None).shape == (1, 3, 64, 96)
    plain = dict(img_shape=(50, 90))
    assert head.predict(maps, [plain], None).shape == (1, 3, 50, 90)
    assert head.out_channels == 3


def test_one_class_is_no_choice(clip_dir):
    head = build(clip_dir, ZeroShotSegHead, ['cat'])
    maps = (torch.randn(1, 64, 4, 4),)
    assert head(maps).shape == (1, 1, 4, 4)
    with pytest.raises(ValueError, match="every pixel would be 'cat'"):
        head.predict(maps, [dict(img_shape=(64, 64))], None)
