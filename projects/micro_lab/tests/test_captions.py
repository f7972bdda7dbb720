from __future__ import annotations

from projects.micro_lab.captions import (
    caption_tokenizer,
    caption_words,
    detection_tokenizer,
)
from projects.micro_lab.digit_scenes import scene


def test_captions_have_no_unknown_word():
    tokenizer = caption_tokenizer()
    end = len(caption_words()) + 3
    for index in range(50):
        caption = scene('train', 0, index).caption
        ids = tokenizer(caption).input_ids
        assert tokenizer.unk_token_id not in ids
        assert tokenizer.decode(ids[1:-1]) == caption
        # CLIP reads a text at its largest id
        assert ids[-1] == max(ids) == end
        assert len(ids) <= 12
    assert tokenizer.unk_token_id in tokenizer('a photo of a cat').input_ids


def test_detection_words_have_the_ids_of_bert(tmp_path):
    tokenizer = detection_tokenizer(tmp_path)
    assert tokenizer('Three. one?').input_ids == [
        101,
        203,
        1012,
        201,
        1029,
        102,
    ]
