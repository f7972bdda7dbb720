import open_clip
import pytest
import torch

from kpu_mm.models.zero_shot import TextBank
from kpu_mm.models.zero_shot.text_bank import find_templates

TEMPLATES = ['a photo of a {}.', 'the {}.']


@pytest.fixture(scope='module')
def bank(clip_dir):
    return TextBank(dict(model=f'local-dir:{clip_dir}'))


@pytest.fixture
def counted(monkeypatch):
    """How often embeddings are computed."""
    calls = []
    compute = TextBank._compute

    def count(self, *args):
        calls.append(args)
        return compute(self, *args)

    monkeypatch.setattr(TextBank, '_compute', count)
    return calls


def test_equals_prompts_by_hand(bank, clip_dir):
    """Mean of unit embeddings, made unit again."""
    text = bank.embed(['cat', 'red car'], TEMPLATES)
    model = open_clip.create_model(f'local-dir:{clip_dir}').eval()
    tokenizer = open_clip.get_tokenizer('ViT-B-16')
    for column, name in zip(text.T, ['cat', 'red car'], strict=True):
        prompts = tokenizer([t.format(name) for t in TEMPLATES])
        with torch.no_grad():
            embedded = model.encode_text(prompts)
        mean = (embedded / embedded.norm(dim=1, keepdim=True)).mean(0)
        torch.testing.assert_close(column, mean / mean.norm())


def test_templates_of_open_clip():
    templates = find_templates(None)
    assert len(templates) == 80
    for ours, theirs in zip(
        templates, open_clip.OPENAI_IMAGENET_TEMPLATES, strict=True
    ):
        assert ours.format('tench') == theirs('tench')


def test_bad_templates():
    with pytest.raises(ValueError, match=r"'a photo' has no '\{\}'"):
        find_templates(['a photo'])
    for templates in ([], 'a photo of a {}.'):
        with pytest.raises(ValueError, match='pass a list'):
            find_templates(templates)


def test_computes_each_list_once(bank, counted):
    first = bank.embed(['cat', 'dog'], TEMPLATES)
    assert bank.embed(('cat', 'dog'), tuple(TEMPLATES)) is first
    assert len(counted) == 1
    bank.embed(['dog', 'cat'], TEMPLATES)
    bank.embed(['cat', 'dog'], TEMPLATES[:1])
    assert len(counted) == 3


def test_keeps_lists_for_the_next_run(
    clip_dir, siglip_text_dir, counted, tmp_path
):
    clip, siglip = (
        dict(model=f'local-dir:{d}') for d in (clip_dir, siglip_text_dir)
    )
    first = TextBank(clip, tmp_path / 'texts').embed(['cat'], TEMPLATES)
    again = TextBank(clip, tmp_path / 'texts').embed(['cat'], TEMPLATES)
    assert len(counted) == 1 and torch.equal(first, again)
    # another model's embeddings are others
    TextBank(siglip, tmp_path / 'texts').embed(['cat'], TEMPLATES)
    assert len(counted) == 2
    assert len(list((tmp_path / 'texts').iterdir())) == 2


def test_prompt_over_the_limit(bank, siglip_text_dir):
    siglip = TextBank(dict(model=f'local-dir:{siglip_text_dir}'))
    for limit, tower in ((77, bank), (64, siglip)):
        fits = ' '.join(['cat'] * (limit - 2))  # with its two special tokens
        assert tower.embed([fits], ['{}']).shape[1] == 1
        with pytest.raises(ValueError, match=f'text tower takes, {limit};'):
            tower.embed(['dog', fits + ' cat'], ['{}'])


def test_follows_its_owner(clip_dir):
    bank = TextBank(dict(model=f'local-dir:{clip_dir}'))
    bank.embed(['cat'], TEMPLATES)
    bank.to('meta')
    assert bank.model.logit_scale.device.type == 'meta'
    assert bank.embed(['cat'], TEMPLATES).device.type == 'meta'


@pytest.mark.parametrize('kind', ['clip', 'siglip_text'])
def test_cosines_of_logits(kind, request):
    """Without the scale, and for a SigLIP without the bias."""
    folder = request.getfixturevalue(f'{kind}_dir')
    bank = TextBank(dict(model=f'local-dir:{folder}'))
    text = bank.embed(['cat', 'red car'], TEMPLATES)
    features = torch.randn(3, 5, len(text))
    expected = torch.cosine_similarity(
        features[..., None], text[None, None], dim=2
    )
    cosine = bank.cosine(bank.logits(features, text))
    torch.testing.assert_close(cosine, expected, rtol=1e-4, atol=1e-6)
