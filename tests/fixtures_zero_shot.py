"""Tiny models for zero-shot work, and a student of them."""

import json
import shutil

import pytest
import torch
from mmengine.config import Config

from kpu_mm.models import KPUDistiller

WORDS = 'a,photo,of,the,cat,dog,red,car,.,my,remote,control'


@pytest.fixture(scope='session')
def siglip_text_dir(siglip_dir, tmp_path_factory):
    """The tiny SigLIP with a tokenizer of a few words."""
    from transformers import BertTokenizerFast

    folder = tmp_path_factory.mktemp('siglip') / 'text'
    shutil.copytree(siglip_dir, folder)
    words = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', *WORDS.split(',')]
    (folder / 'vocab.txt').write_text('\n'.join(words))
    tokenizer = BertTokenizerFast(str(folder / 'vocab.txt'))
    tokenizer.save_pretrained(folder)
    path = folder / 'open_clip_config.json'
    config = json.loads(path.read_text())
    config['model_cfg']['text_cfg']['hf_tokenizer_name'] = 'any'
    path.write_text(json.dumps(config))
    return folder


@pytest.fixture(scope='session')
def florence_dir(save_model):
    """A tiny Florence-2 with its tokens for locations."""
    from transformers import (
        AddedToken,
        BartConfig,
        BartTokenizerFast,
        CLIPImageProcessor,
        Florence2Config,
        Florence2ForConditionalGeneration,
        Florence2Processor,
    )

    special = ['<s>', '<pad>', '</s>', '<unk>', '<mask>']
    letters = [chr(c) for c in range(33, 127)] + ['Ġ']
    vocab = {word: i for i, word in enumerate(special + letters)}

    def build_tokenizer(folder):
        (folder / 'vocab.json').write_text(json.dumps(vocab))
        (folder / 'merges.txt').write_text('#version: 0.2\n')
        tokenizer = BartTokenizerFast(
            str(folder / 'vocab.json'),
            str(folder / 'merges.txt'),
            extra_special_tokens={'image_token': '<image>'},
        )
        tokenizer.add_tokens([AddedToken(f'<loc_{i}>', normalized=False) for i in range(1000)])
        return tokenizer

    image_token = len(vocab)  # the first that is added
    config = Florence2Config(
        vision_config=dict(
            depths=(1, 1, 1, 1),
            embed_dim=(8, 8, 16, 16),
            num_heads=(1, 1, 2, 2),
            num_groups=(1, 1, 2, 2),
            window_size=4,
            drop_path_rate=0.0,
            projection_dim=32,
        ),
        text_config=BartConfig(
            vocab_size=image_token + 1001,
            d_model=32,
            encoder_layers=1,
            decoder_layers=1,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            encoder_ffn_dim=64,
            decoder_ffn_dim=64,
            max_position_embeddings=128,
            forced_bos_token_id=0,
        ).to_dict(),
        image_token_id=image_token,
    )
    folder = save_model('florence', lambda: Florence2ForConditionalGeneration(config))
    size = dict(height=64, width=64)
    images = CLIPImageProcessor(size=size, crop_size=size, do_center_crop=False, image_seq_length=5)
    processor = Florence2Processor(
        images,
        build_tokenizer(folder),
        # what released models answer the prompt of detection with
        post_processor_config=dict(description_with_bboxes={}),
    )
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope='session')
def zero_shot_run(tmp_path_factory, dinov2_dir, clip_dir, grounding_dino_dir):
    """A run's folder: config and checkpoint of a student of two teachers."""
    model = dict(
        type='kpu_mm.KPUDistiller',
        student=dict(
            type='kpu_mm.KPUBackbone', sentinel=str(dinov2_dir), inplanes=8, num_interactions=2
        ),
        teachers=dict(
            clip=dict(type='kpu_mm.CLIPTeacher', model=f'local-dir:{clip_dir}'),
            grounding_dino=dict(type='kpu_mm.GroundingDINOTeacher', source=str(grounding_dino_dir)),
        ),
        projector=dict(type='kpu_mm.MLPProjector', hidden=24),
    )
    folder = tmp_path_factory.mktemp('zero_shot')
    Config(dict(model=model)).dump(folder / 'run.py')
    with torch.random.fork_rng():
        torch.manual_seed(0)
        distiller = KPUDistiller(**{k: model[k] for k in model if k != 'type'})
        for name, p in distiller.named_parameters():
            if 'sentinel' not in name:
                p.data += 0.1 * torch.randn_like(p)
    torch.save(dict(state_dict=distiller.state_dict(), meta={}), folder / 'iter_1.pth')
    return folder
