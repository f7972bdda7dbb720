"""Tiny saved models of the libraries' own classes.

Every fixture is the path of a folder with random weights, made once a
session: what a test changes it must copy first.
"""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file

from tests.fixtures_labeled import CLASSES

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)

CLIP_CONFIG = {
    'embed_dim': 32,
    'vision_cfg': {'image_size': 64, 'layers': 3, 'width': 64, 'head_width': 32, 'patch_size': 16},
    'text_cfg': {'context_length': 77, 'vocab_size': 49408, 'width': 32, 'heads': 2, 'layers': 2},
}
SIGLIP_CONFIG = {
    'embed_dim': 64,
    'custom_text': True,
    'init_logit_bias': -10,
    'vision_cfg': {
        'image_size': 160,
        'timm_model_name': 'test_vit',
        'timm_pool': 'map',
        'timm_proj': 'none',
    },
    'text_cfg': {
        'context_length': 64,
        'vocab_size': 200,
        'width': 64,
        'heads': 2,
        'layers': 2,
        'no_causal_mask': True,
        'proj_bias': True,
        'pool_type': 'last',
    },
}


@pytest.fixture(scope='session')
def save_model(tmp_path_factory):
    """Build with a fixed seed, spread the weights, save to a new folder."""

    def save(name, build, mean=IMAGENET_MEAN, std=IMAGENET_STD):
        folder = tmp_path_factory.mktemp(name)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = build().eval()
            # the libraries start near zero, where a lost norm goes unseen
            for parameter in model.parameters():
                parameter.data.add_(0.1 * torch.randn_like(parameter))
        model.save_pretrained(folder)
        (folder / 'preprocessor_config.json').write_text(
            json.dumps({'image_mean': mean, 'image_std': std})
        )
        return folder

    return save


@pytest.fixture(scope='session')
def dinov2_dir(save_model):
    from transformers import Dinov2Config, Dinov2Model

    config = Dinov2Config(
        hidden_size=48, num_hidden_layers=4, num_attention_heads=4, image_size=56, patch_size=14
    )
    return save_model('dinov2', lambda: Dinov2Model(config))


@pytest.fixture(scope='session')
def dinov2_reg_dir(save_model):
    from transformers import Dinov2WithRegistersConfig, Dinov2WithRegistersModel

    config = Dinov2WithRegistersConfig(
        hidden_size=48,
        num_hidden_layers=4,
        num_attention_heads=4,
        image_size=56,
        patch_size=14,
        num_register_tokens=4,
    )
    return save_model('dinov2_reg', lambda: Dinov2WithRegistersModel(config))


@pytest.fixture(scope='session')
def dinov3_dir(save_model):
    from transformers import DINOv3ViTConfig, DINOv3ViTModel

    config = DINOv3ViTConfig(
        hidden_size=48,
        intermediate_size=96,
        num_hidden_layers=4,
        num_attention_heads=4,
        image_size=64,
        patch_size=16,
        num_register_tokens=4,
    )
    return save_model('dinov3', lambda: DINOv3ViTModel(config))


@pytest.fixture(scope='session')
def grounding_dino_dir(save_model):
    """With a processor, whose vocabulary is seven labels' words."""
    from transformers import (
        BertConfig,
        BertTokenizerFast,
        GroundingDinoConfig,
        GroundingDinoForObjectDetection,
        GroundingDinoImageProcessor,
        GroundingDinoProcessor,
        SwinConfig,
    )

    config = GroundingDinoConfig(
        backbone_config=SwinConfig(
            image_size=64,
            embed_dim=16,
            depths=[1, 1, 1, 1],
            num_heads=[1, 2, 4, 8],
            window_size=4,
            drop_path_rate=0.0,
            out_indices=[2, 3, 4],
        ),
        text_config=BertConfig(
            vocab_size=1040,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=64,
            max_position_embeddings=256,
        ),
        d_model=32,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        num_queries=20,
        max_text_len=64,
    )
    folder = save_model('grounding_dino', lambda: GroundingDinoForObjectDetection(config))
    # the model knows [CLS] [SEP] . ? by BERT's ids
    words = {i: f'[unused{i}]' for i in range(1040)}
    words |= {0: '[PAD]', 100: '[UNK]', 101: '[CLS]', 102: '[SEP]'}
    words |= {103: '[MASK]', 1012: '.', 1029: '?'}
    # with the classes of the labelled images
    labels = ['a', 'cat', 'dog', 'person', 'remote', 'control', *CLASSES]
    words |= {200 + k: word for k, word in enumerate(labels)}
    vocab = folder / 'vocab.txt'
    vocab.write_text('\n'.join(words[i] for i in range(1040)))
    images = GroundingDinoImageProcessor(size={'shortest_edge': 96, 'longest_edge': 160})
    processor = GroundingDinoProcessor(images, BertTokenizerFast(str(vocab)))
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope='session')
def mm_grounding_dino_dir(grounding_dino_dir, save_model):
    from transformers import (
        GroundingDinoConfig,
        MMGroundingDinoConfig,
        MMGroundingDinoForObjectDetection,
    )

    values = GroundingDinoConfig.from_pretrained(grounding_dino_dir).to_dict()
    del values['model_type']
    config = MMGroundingDinoConfig(**values)
    return save_model('mm', lambda: MMGroundingDinoForObjectDetection(config))


@pytest.fixture(scope='session')
def sam2_dir(save_model):
    """With the kind of config that released models have: for videos, too."""
    from transformers import Sam2VideoConfig, Sam2VideoModel, Sam2VisionConfig

    vision = Sam2VisionConfig(
        backbone_config=dict(
            hidden_size=16,
            image_size=[64, 64],
            window_positional_embedding_background_size=[2, 2],
            blocks_per_stage=[1, 1, 2, 1],
            embed_dim_per_stage=[16, 32, 64, 128],
            num_attention_heads_per_stage=[1, 2, 4, 8],
            window_size_per_stage=[8, 4, 2, 2],
            global_attention_blocks=[3],
        ),
        backbone_channel_list=[128, 64, 32, 16],
        backbone_feature_sizes=[[16, 16], [8, 8], [4, 4]],
        fpn_hidden_size=32,
    )
    config = Sam2VideoConfig(
        vision_config=vision.to_dict(),
        prompt_encoder_config=dict(hidden_size=32, image_size=64),
        mask_decoder_config=dict(hidden_size=32, mlp_dim=64, num_attention_heads=4),
        image_size=64,
        memory_attention_hidden_size=32,
        memory_attention_num_layers=1,
        memory_attention_feed_forward_hidden_size=64,
        memory_encoder_hidden_size=32,
        memory_encoder_output_channels=16,
        mask_downsampler_embed_dim=32,
        memory_fuser_num_layers=1,
        memory_fuser_embed_dim=32,
        memory_fuser_intermediate_dim=64,
    )
    return save_model('sam2', lambda: Sam2VideoModel(config))


@pytest.fixture(scope='session')
def dpt_dir(save_model):
    """A whole model for depth, as released ones are."""
    from transformers import DPTConfig, DPTForDepthEstimation

    config = DPTConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=4,
        num_attention_heads=4,
        image_size=64,
        patch_size=16,
        backbone_out_indices=[0, 1, 2, 3],
        neck_hidden_sizes=[8, 8, 8, 8],
        fusion_hidden_size=8,
    )
    return save_model('dpt', lambda: DPTForDepthEstimation(config))


@pytest.fixture(scope='session')
def save_clip(tmp_path_factory):
    """Save an open_clip model of a config as a `local-dir:` folder."""
    import open_clip

    def save(name, config, mean, std, resize_mode):
        folder = tmp_path_factory.mktemp(name)
        cls = open_clip.CustomTextCLIP if config.get('custom_text') else open_clip.CLIP
        arguments = {k: v for k, v in config.items() if k != 'custom_text'}
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = cls(**arguments)
            for parameter in model.parameters():
                parameter.data.add_(0.05 * torch.randn_like(parameter))
        save_file(
            {k: v.contiguous() for k, v in model.state_dict().items()},
            folder / 'open_clip_model.safetensors',
        )
        preprocess = {
            'mean': mean,
            'std': std,
            'interpolation': 'bicubic',
            'resize_mode': resize_mode,
        }
        (folder / 'open_clip_config.json').write_text(
            json.dumps({'model_cfg': config, 'preprocess_cfg': preprocess})
        )
        return folder

    return save


@pytest.fixture(scope='session')
def clip_dir(save_clip):
    """A native CLIP; its tokenizer ships with open_clip."""
    return save_clip('clip', CLIP_CONFIG, CLIP_MEAN, CLIP_STD, 'shortest')


@pytest.fixture(scope='session')
def resnet_clip_dir(save_clip):
    """A CLIP with CLIP's own ResNet."""
    vision = {'image_size': 64, 'layers': [1, 1, 1, 1], 'width': 8, 'head_width': 64}
    config = {**CLIP_CONFIG, 'vision_cfg': vision}
    return save_clip('resnet_clip', config, CLIP_MEAN, CLIP_STD, 'shortest')


@pytest.fixture(scope='session')
def siglip_dir(save_clip):
    """A SigLIP: vision tower of timm, sigmoid loss; without tokenizer."""
    half = (0.5, 0.5, 0.5)
    return save_clip('siglip', SIGLIP_CONFIG, half, half, 'squash')
