from __future__ import annotations

import torch

from kpu_mm.models.teachers import CLIPTeacher
from projects.micro_lab.digit_scenes import scene
from projects.micro_lab.micro_clip import (
    CLIPNet,
    build_clip,
    caption_tokenizer,
    caption_words,
    export_clip,
)

# fp16 keeps 11 bits, of which a dozen layers lose a few
CLOSE = dict(rtol=0.0, atol=0.03)


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


def test_exported_clip_gives_equal_features(tmp_path, scenes):
    images = scenes.images[:3]
    torch.manual_seed(0)
    net = CLIPNet(build_clip()).eval()
    export_clip(net.model, tmp_path)
    teacher = CLIPTeacher(f'local-dir:{tmp_path}', with_text=True)
    with torch.no_grad():
        summary, patches = net.features(images)
    found = teacher(images.permute(0, 3, 1, 2))
    torch.testing.assert_close(found.summary, summary, **CLOSE)
    torch.testing.assert_close(found.maps[0], patches, **CLOSE)
    texts = ['a red three', 'the digit nine']
    assert torch.equal(teacher.tokenizer()(texts), net.tokens(texts))
