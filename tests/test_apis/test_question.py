import pytest

from kpu_mm.apis.question import read_question, set_text


class Sample:
    def set_metainfo(self, meta):
        self.meta = meta


def test_names_or_a_text():
    assert read_question(['a', 'b'], None) == ('a', 'b')
    assert read_question(None, 'a text', ['x']) == 'a text'
    assert read_question(None, None, ['x']) == ('x',)
    samples = [Sample(), Sample()]
    for text, is_list in (('a text', False), (('a', 'b'), True)):
        set_text(dict(data_samples=samples), text)
        for sample in samples:
            assert sample.meta == dict(text=text, custom_entities=is_list)


def test_nothing_or_too_much():
    for asked in ((None, None), ('cat', None)):
        with pytest.raises(ValueError, match='say what to look for'):
            read_question(*asked)
    with pytest.raises(ValueError, match='not both'):
        read_question(['a'], 'b')
    with pytest.raises(ValueError, match='one free text for all'):
        read_question(None, ['a', 'b'])
