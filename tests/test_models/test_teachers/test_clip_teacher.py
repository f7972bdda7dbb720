import json
import shutil

import open_clip
import pytest
import torch
import torch.nn.functional as F

from kpu_mm.models.teachers import CLIPTeacher


@pytest.fixture
def images():
    return torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)


def load(folder):
    model = open_clip.create_model(f'local-dir:{folder}').eval()
    # a weight that asks for gradients selects another attention kernel
    return model.requires_grad_(False)


def normalized(images, folder):
    config = json.loads((folder / 'open_clip_config.json').read_text())
    values = [torch.tensor(config['preprocess_cfg'][key]).view(3, 1, 1) for key in ('mean', 'std')]
    return (images.float() / 255 - values[0]) / values[1]


@torch.no_grad()
def test_equals_native_clip(clip_dir, images):
    teacher = CLIPTeacher(f'local-dir:{clip_dir}')
    reference = load(clip_dir)
    x = normalized(images, clip_dir)
    features = teacher(images)
    assert torch.equal(features.summary, reference.encode_image(x))
    reference.visual.output_tokens = True
    tokens = reference.visual(x)[1]
    ours = features.maps[0].flatten(2).transpose(1, 2)
    assert torch.equal(ours, tokens)
    assert teacher.summary_channels == 32
    assert teacher.channels == (64,)
    assert teacher.strides == (16,)
    assert teacher.resolution == (64, 64)


@torch.no_grad()
def test_equals_clip_s_resnet(resnet_clip_dir, images):
    teacher = CLIPTeacher(f'local-dir:{resnet_clip_dir}')
    reference = load(resnet_clip_dir)
    x = normalized(images, resnet_clip_dir)
    features = teacher(images)
    assert torch.equal(features.summary, reference.encode_image(x))
    visual = reference.visual
    pooled = visual.attnpool(features.maps[0])
    assert torch.equal(pooled, features.summary)
    assert teacher.channels == (256,)
    assert teacher.strides == (32,)


@torch.no_grad()
def test_equals_siglip(siglip_dir):
    images = torch.randint(0, 256, (2, 3, 160, 160), dtype=torch.uint8)
    teacher = CLIPTeacher(f'local-dir:{siglip_dir}')
    reference = load(siglip_dir)
    x = normalized(images, siglip_dir)
    features = teacher(images)
    assert torch.equal(features.summary, reference.encode_image(x))
    tokens = reference.visual.trunk.forward_features(x)
    prefix = reference.visual.trunk.num_prefix_tokens
    ours = features.maps[0].flatten(2).transpose(1, 2)
    assert torch.equal(ours, tokens[:, prefix:])
    assert teacher.summary_channels == 64
    assert teacher.channels == (64,)
    assert teacher.strides == (16,)
    assert torch.equal(teacher.mean.flatten(), torch.full((3,), 0.5))


@torch.no_grad()
def test_own_summary_gives_own_logits(clip_dir, images):
    teacher = CLIPTeacher(f'local-dir:{clip_dir}', with_text=True)
    texts = teacher.tokenizer()(['a cat', 'a dog', 'a car'])
    image, text, scale = teacher.model(normalized(images, clip_dir), texts)
    summary = teacher(images).summary
    ours = torch.nn.functional.normalize(summary, dim=-1)
    assert torch.equal(scale * ours @ text.T, scale * image @ text.T)


@torch.no_grad()
def test_own_summary_gives_own_siglip_logits(siglip_dir):
    images = torch.randint(0, 256, (2, 3, 160, 160), dtype=torch.uint8)
    teacher = CLIPTeacher(f'local-dir:{siglip_dir}', with_text=True)
    texts = torch.randint(1, 200, (3, 64))
    expected, _ = teacher.model.get_logits(normalized(images, siglip_dir), texts)
    ours = torch.nn.functional.normalize(teacher(images).summary, dim=-1)
    text = teacher.model.encode_text(texts, normalize=True)
    scale = teacher.model.logit_scale.exp()
    logits = scale * ours @ text.T + teacher.model.logit_bias
    assert torch.equal(logits, expected)


def test_keeps_only_the_image_tower(clip_dir):
    teacher = CLIPTeacher(f'local-dir:{clip_dir}')
    whole = CLIPTeacher(f'local-dir:{clip_dir}', with_text=True)
    assert teacher.model is None
    assert all(key.startswith('visual.') for key in teacher.state_dict())
    assert any('token_embedding' in key for key in whole.state_dict())
    whole.train()
    assert not any(m.training for m in whole.modules())
    assert not any(p.requires_grad for p in whole.parameters())


@torch.no_grad()
def test_resizes_to_its_size(clip_dir, siglip_dir):
    teacher = CLIPTeacher(f'local-dir:{clip_dir}')
    assert teacher(torch.rand(1, 3, 50, 90)).maps[0].shape[2:] == (4, 4)
    for folder in (clip_dir, siglip_dir):
        wide = CLIPTeacher(f'local-dir:{folder}', resolution=(96, 128))
        maps = wide(torch.rand(1, 3, 96, 128)).maps
        assert maps[0].shape == (1, 64, 6, 8)


# --- weights in a file -----------------------------------------------------


@pytest.fixture
def tiny(clip_dir, tmp_path):
    """The tiny CLIP as a named config, with its weights in a file."""
    config = json.loads((clip_dir / 'open_clip_config.json').read_text())
    model = config['model_cfg']
    (tmp_path / 'tiny.json').write_text(json.dumps(model))
    quick = dict(model, quick_gelu=True)
    (tmp_path / 'tiny-quickgelu.json').write_text(json.dumps(quick))
    open_clip.add_model_config(tmp_path)
    return str(clip_dir / 'open_clip_model.safetensors')


HALF = dict(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


@torch.no_grad()
def test_file_with_stated_activation(tiny, clip_dir, images):
    plain = CLIPTeacher('tiny', tiny, quick_gelu=False, **HALF)
    quick = CLIPTeacher('tiny', tiny, quick_gelu=True, **HALF)
    named = CLIPTeacher('tiny-quickgelu', tiny, **HALF)
    x = plain.prepare(images)[0]
    expected = load(clip_dir).encode_image(x)
    assert torch.equal(plain(images).summary, expected)
    assert torch.equal(quick(images).summary, named(images).summary)
    # the trap: the other activation is wrong and does not raise
    assert not torch.allclose(quick(images).summary, expected, atol=1e-3)


def test_file_without_stated_activation(tiny):
    with pytest.raises(ValueError, match='set quick_gelu=True for'):
        CLIPTeacher('tiny', tiny, **HALF)
    with pytest.raises(ValueError, match='quick_gelu=False contradicts'):
        CLIPTeacher('tiny-quickgelu', tiny, quick_gelu=False, **HALF)


def test_file_without_stated_normalization(tiny, siglip_dir, tmp_path):
    with pytest.raises(ValueError, match='set mean and std, such as'):
        CLIPTeacher('tiny', tiny, quick_gelu=False)
    # SigLIP has no activation to state, but open_clip gives it CLIP's mean
    file = str(siglip_dir / 'open_clip_model.safetensors')
    with pytest.raises(ValueError, match='for SigLIP'):
        CLIPTeacher('ViT-B-16-SigLIP2', file)
    with pytest.raises(ValueError, match='both mean and std'):
        CLIPTeacher('tiny', tiny, quick_gelu=False, mean=(0.5, 0.5, 0.5))


def test_broken_or_foreign_file(tiny, siglip_dir, tmp_path):
    cut = tmp_path / 'cut.safetensors'
    with open(tiny, 'rb') as file:
        cut.write_bytes(file.read()[:5000])
    with pytest.raises(RuntimeError, match=r'cut\.safetensors. are broken'):
        CLIPTeacher('tiny', str(cut), quick_gelu=False, **HALF)
    other = str(siglip_dir / 'open_clip_model.safetensors')
    with pytest.raises(RuntimeError, match="do not fit 'tiny'"):
        CLIPTeacher('tiny', other, quick_gelu=False, **HALF)


def test_torchscript_is_refused_as_such(tiny, tmp_path):
    """As OpenAI's own files are; torch would advise to run their code."""
    path = str(tmp_path / 'ViT-B-16.pt')
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), path)
    with pytest.raises(
        RuntimeError, match=r'TorchScript program, no checkpoint; pass its weights\.$'
    ):
        CLIPTeacher('tiny', path, quick_gelu=False, **HALF)
    with pytest.raises(RuntimeError, match="weights; for OpenAI's own weights set pretrained='op"):
        CLIPTeacher('ViT-B-16', path, quick_gelu=True, **HALF)


# --- tags ------------------------------------------------------------------


@pytest.fixture
def tag(tiny, monkeypatch):
    """A function that makes open_clip know a tag of the tiny models."""
    from open_clip import pretrained

    from kpu_mm.models.teachers import clip_teacher

    def add(quick_gelu=False, **preprocess):
        entry = dict(hf_hub='org/repo/', quick_gelu=quick_gelu, **HALF, **preprocess)
        table = pretrained._PRETRAINED
        for name in ('tiny', 'tiny-quickgelu'):
            monkeypatch.setitem(table, name, dict(some_tag=entry))
        monkeypatch.setattr(clip_teacher, 'fetch_file', lambda *_: tiny)

    return add


@torch.no_grad()
def test_tag_switches_to_quick_gelu(tag, tiny, images):
    tag(quick_gelu=True)
    switched = CLIPTeacher('tiny', 'some_tag')
    named = CLIPTeacher('tiny-quickgelu', 'some_tag')
    stated = CLIPTeacher('tiny', tiny, quick_gelu=True, **HALF)
    assert torch.equal(switched(images).summary, stated(images).summary)
    assert torch.equal(named(images).summary, stated(images).summary)
    with pytest.raises(ValueError, match='trained with quick_gelu=True'):
        CLIPTeacher('tiny', 'some_tag', quick_gelu=False)


@torch.no_grad()
def test_config_may_be_quick_where_its_tag_says_nothing(tag, tiny, images):
    """As that of roberta-ViT-B-32."""
    tag(quick_gelu=False)
    assert CLIPTeacher('tiny', 'some_tag').std[0] == 0.5
    quick = CLIPTeacher('tiny', tiny, quick_gelu=True, **HALF)(images).summary
    assert torch.equal(CLIPTeacher('tiny-quickgelu', 'some_tag')(images).summary, quick)
    with pytest.raises(ValueError, match="use the config 'tiny'"):
        CLIPTeacher('tiny', 'some_tag', quick_gelu=True)


@torch.no_grad()
def test_preprocessing_is_the_tag_s(tag, tiny):
    """Of its weights in a file, too; images of another size are resized by it."""
    own = dict(interpolation='bilinear', resize_mode='squash')
    tag(**own)
    for teacher in (
        CLIPTeacher('tiny', 'some_tag'),
        CLIPTeacher('tiny', tiny, quick_gelu=False, **HALF),
    ):
        assert teacher.visual.preprocess_cfg.items() >= own.items()
        images = torch.randint(0, 256, (1, 3, 90, 40)).float()
        resized = F.interpolate(images, (64, 64), mode='bilinear', antialias=True)
        torch.testing.assert_close(teacher.prepare(images)[0], resized / 127.5 - 1)


def test_released_tags_say_their_activation():
    from open_clip.pretrained import get_pretrained_cfg

    for name in ('openai', 'dfn2b', 'metaclip_400m', 'metaclip_fullcc'):
        assert get_pretrained_cfg('ViT-B-16', name)['quick_gelu'] is True
    tag = get_pretrained_cfg('ViT-B-16', 'laion2b_s34b_b88k')
    assert not tag.get('quick_gelu')


def test_unreachable_hub_is_one_quick_sentence(monkeypatch):
    monkeypatch.setenv('HF_HUB_OFFLINE', '1')
    with pytest.raises(FileNotFoundError, match='HF_HUB_OFFLINE') as info:
        CLIPTeacher('ViT-B-16', 'openai')
    assert 'open_clip_model.safetensors' in str(info.value)
    assert '\n' not in str(info.value)
    with pytest.raises(FileNotFoundError, match='its open_clip_config'):
        CLIPTeacher('hf-hub:org/some-clip')


# --- never random ----------------------------------------------------------


def test_never_random(clip_dir, tmp_path):
    with pytest.raises(ValueError, match='random weights: set pretrained'):
        CLIPTeacher('ViT-B-16')
    folder = shutil.copytree(clip_dir, tmp_path / 'copy')
    (folder / 'open_clip_model.safetensors').unlink()
    with pytest.raises(FileNotFoundError, match='is not a saved model'):
        CLIPTeacher(f'local-dir:{folder}')
    with pytest.raises(ValueError, match='neither a file nor a tag'):
        CLIPTeacher('ViT-B-16', 'openia')
    with pytest.raises(ValueError, match="no model 'ViT-Z'"):
        CLIPTeacher('ViT-Z', 'openai')
    with pytest.raises(ValueError, match='would be ignored'):
        CLIPTeacher(f'local-dir:{clip_dir}', 'openai')


def test_folder_must_state_its_normalization(clip_dir, tmp_path):
    folder = shutil.copytree(clip_dir, tmp_path / 'copy')
    path = folder / 'open_clip_config.json'
    config = json.loads(path.read_text())
    path.write_text(json.dumps({'model_cfg': config['model_cfg']}))
    with pytest.raises(ValueError, match='no mean and std'):
        CLIPTeacher(f'local-dir:{folder}')
    assert CLIPTeacher(f'local-dir:{folder}', **HALF).mean[0] == 0.5


def test_tokenizer_that_is_not_there(siglip_dir, tmp_path):
    folder = shutil.copytree(siglip_dir, tmp_path / 'copy')
    path = folder / 'open_clip_config.json'
    config = json.loads(path.read_text())
    config['model_cfg']['text_cfg']['hf_tokenizer_name'] = 'org/tokenizer'
    path.write_text(json.dumps(config))
    with pytest.raises(FileNotFoundError, match=r'put tokenizer\.json'):
        CLIPTeacher(f'local-dir:{folder}', with_text=True).tokenizer()
