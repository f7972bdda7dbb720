import re
import sys
import warnings

import open_clip
import pytest
import torch
from transformers import GroundingDinoProcessor

from kpu_mm.models.zero_shot.prompts import (
    check_text,
    find_classes,
    find_templates,
    read_text,
    split_prompts,
)


def test_lists_of_data_sets():
    assert find_classes('imagenet') == tuple(open_clip.IMAGENET_CLASSNAMES)
    names = find_classes('ade20k')
    assert len(names) == 150
    assert names[7] == 'bed'  # MMSegmentation's has a space behind it


def test_unknown_data_set(monkeypatch):
    with pytest.raises(ValueError, match=r"no class list 'cat': pass a list"):
        find_classes('cat')
    monkeypatch.setitem(sys.modules, 'mmseg.utils', None)
    with pytest.raises(ValueError, match='with MMSegmentation installed'):
        find_classes('ade20k')


def test_own_list():
    assert find_classes([' cat', 'hot dog']) == ('cat', 'hot dog')
    with pytest.raises(ValueError, match='class list is empty'):
        find_classes([])


@pytest.mark.parametrize('text', ['', ' ', '. . .', 'the', 'A, of the!', 3])
def test_texts_that_name_nothing(text):
    with pytest.raises(ValueError, match='names nothing: write'):
        check_text(text)
    with pytest.raises(ValueError, match='names nothing'):
        find_classes(['cat', text])


@pytest.mark.parametrize('text', ['The Who', '猫', 'a cat.', '7', 'trash can'])
def test_texts_that_name_something(text):
    check_text(text)


def test_templates_of_open_clip():
    templates = find_templates(None)
    assert len(templates) == 80
    for ours, theirs in zip(templates, open_clip.OPENAI_IMAGENET_TEMPLATES, strict=True):
        assert ours.format('tench') == theirs('tench')


def test_templates_with_several_places():
    assert find_templates(['a {} by a {}', '{0}, {0}']) == ('a {} by a {}', '{}, {}')


def test_names_given_twice():
    with pytest.warns(UserWarning, match="2 classes are named 'cat' and share its score"):
        assert find_classes(['cat', 'dog', ' cat']) == ('cat', 'dog', 'cat')


def test_bad_templates():
    for template in ('a photo', 'a {} in {place}', 'a {1}', '{{}}', 'a {:5} {}', 'a {} {', '', 7):
        with pytest.raises(ValueError, match=r"template .* must have '\{\}' in the place"):
            find_templates(['a {}.', template])
    for templates in ([], 'a photo of a {}.'):
        with pytest.raises(ValueError, match='pass a list'):
            find_templates(templates)


@pytest.fixture(scope='module')
def processor(grounding_dino_dir):
    return GroundingDinoProcessor.from_pretrained(grounding_dino_dir)


@pytest.fixture(scope='module')
def split(processor):
    def split(names, limit=64):
        return split_prompts(names, processor.tokenizer, limit, 64)

    return split


def test_one_prompt_is_the_processor_s(processor, split):
    names = ['a Cat', ' remote control', 'dog']
    (prompt,) = split(names)
    expected = processor(text=[names], return_tensors='pt').input_ids
    assert torch.equal(prompt.input_ids, expected)
    # [CLS] a cat . remote control . dog . [SEP]
    shares = torch.zeros(3, 64)
    shares[0, 1:3] = shares[1, 4:6] = 0.5
    shares[2, 7] = 1
    assert torch.equal(prompt.token_shares, shares)


def test_splits_where_the_limit_is(processor, split):
    names = ['dog', 'a cat', 'remote control', 'person', 'cat']
    # tokens with full stops: 2, 3, 3, 2, 2; the limit holds [CLS] and [SEP]
    for limit, sizes in ((14, [5]), (13, [4, 1]), (8, [2, 2, 1]), (7, [2, 2, 1])):
        prompts = split(names, limit)
        assert [len(p.token_shares) for p in prompts] == sizes, limit
        assert all(p.input_ids.shape[1] <= limit for p in prompts)
        texts = [processor.decode(p.input_ids[0, 1:-1]) for p in prompts]
        joined = ''.join(texts).replace(' .', '.').rstrip('.').split('.')
        assert [t.strip() for t in joined] == names


def test_bad_names(split):
    with pytest.raises(ValueError, match='class list is empty'):
        split([])
    with pytest.raises(ValueError, match=r"'the' names nothing"):
        split(['dog', 'the'])
    for name in ('St. Bernard', 'cat?'):
        with pytest.raises(ValueError, match=rf"end a phrase.*'{re.escape(name.lower())}'"):
            split(['dog', name])
    with pytest.raises(ValueError, match=r'has 62 tokens; the text.*takes 61'):
        split(['dog', 'cat ' * 62])
    assert len(split(['cat ' * 61])) == 1


def test_free_text(processor):
    tokens = read_text('A cat. the dog', processor.tokenizer, 64)
    expected = processor(text='a cat. the dog.', return_tensors='pt')
    assert torch.equal(tokens, expected.input_ids)
    with pytest.raises(ValueError, match='names nothing'):
        read_text('. ? the', processor.tokenizer, 64)
    with pytest.raises(ValueError, match=r'has 73 tokens; .* takes 64'):
        read_text('cat ' * 70, processor.tokenizer, 64)


def test_unknown_words(processor, split):
    """The tokenizer knows a cat, a dog, a person, and a remote control."""
    tokenizer = processor.tokenizer
    for name in ('ዝሆን', 'the zebra', 'a 🦄x', 'ዝሆን-ዝሆን'):
        for ask in (lambda n: split(['dog', n]), lambda n: read_text(f'a dog. {n}', tokenizer, 64)):
            with pytest.raises(ValueError, match=rf"knows no word of '{name}'; write it in other"):
                ask(name)
    for name, missing in (('zebra cat', 'zebra'), ('cat 🦄', '🦄')):
        with pytest.warns(UserWarning, match=rf"does not know \['{missing}'\] in '{name}'"):
            split([name])
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        split(['a cat', 'remote control'])
