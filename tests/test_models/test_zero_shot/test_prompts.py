import pytest
import torch
from transformers import GroundingDinoProcessor

from kpu_mm.models.zero_shot.prompts import read_text, split_prompts


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
    assert torch.equal(prompt.tokens_of, shares)


def test_splits_where_the_limit_is(processor, split):
    names = ['dog', 'a cat', 'remote control', 'person', 'cat']
    # tokens with full stops: 2, 3, 3, 2, 2; the limit holds [CLS] and [SEP]
    for limit, sizes in (
        (14, [5]),
        (13, [4, 1]),
        (8, [2, 2, 1]),
        (7, [2, 2, 1]),
    ):
        prompts = split(names, limit)
        assert [len(p.tokens_of) for p in prompts] == sizes, limit
        assert all(p.input_ids.shape[1] <= limit for p in prompts)
        texts = [processor.decode(p.input_ids[0, 1:-1]) for p in prompts]
        joined = ''.join(texts).replace(' .', '.').rstrip('.').split('.')
        assert [t.strip() for t in joined] == names


def test_bad_names(split):
    with pytest.raises(ValueError, match='class list is empty'):
        split([])
    with pytest.raises(ValueError, match=r"'the' names nothing"):
        split(['dog', 'the'])
    with pytest.raises(ValueError, match=r"end a phrase.*'st. bernard'"):
        split(['dog', 'St. Bernard'])
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
