"""Backbones of other libraries under the names official checkpoints use."""

import re

import torch
from timm.models.swin_transformer import SwinTransformer
from torch import nn
from torchvision.models import resnet50


def resnet_state(model):
    """Names of detectron2's ResNet, with its frozen norms."""
    state = {}
    for name, value in model.state_dict().items():
        if name.startswith('fc.') or name.endswith('num_batches_tracked'):
            continue
        name = re.sub(r'^layer(\d)', lambda match: f'res{int(match[1]) + 1}', name)
        if name.startswith(('conv1', 'bn1')):
            name = f'stem.{name}'
        name = name.replace('downsample.0', 'shortcut')
        name = name.replace('downsample.1', 'shortcut.norm')
        name = re.sub(r'bn(\d)', r'conv\1.norm', name)
        state[f'backbone.{name}'] = value
    return state


class TorchvisionR50(nn.Module):
    channels = (256, 512, 1024, 2048)

    def __init__(self):
        super().__init__()
        self.model = resnet50()
        for module in self.model.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.weight, 0.5, 1)
                nn.init.uniform_(module.running_var, 0.5, 2)
                nn.init.normal_(module.bias, std=0.1)
                nn.init.normal_(module.running_mean, std=0.1)

    def official_state(self):
        return resnet_state(self.model)

    def forward(self, x):
        m = self.model.eval()
        x = m.maxpool(m.relu(m.bn1(m.conv1(x))))
        maps = []
        for layer in (m.layer1, m.layer2, m.layer3, m.layer4):
            x = layer(x)
            maps.append(x)
        return maps


def swin_state(model):
    """Names of the original Swin, with new norms behind the stages."""
    state = {}
    for name, value in model.state_dict().items():
        if name.startswith(('norm.', 'head.')):
            continue
        # timm puts the merging before a stage, the original after one
        name = re.sub(
            r'^layers\.(\d)\.downsample',
            lambda match: f'layers.{int(match[1]) - 1}.downsample',
            name,
        )
        state[f'backbone.{name}'] = value
        if name.endswith('relative_position_bias_table'):
            index = name.replace('bias_table', 'index')
            side = int(len(value) ** 0.5 + 1) // 2
            state[f'backbone.{index}'] = window_index(side)
    for i in range(4):
        norm = nn.LayerNorm(model.embed_dim * 2**i)
        state[f'backbone.norm{i}.weight'] = norm.weight.detach()
        state[f'backbone.norm{i}.bias'] = norm.bias.detach()
    return state


class TimmSwin(nn.Module):
    """Swin with the official checkpoints' norm after each stage."""

    def __init__(self, dims=32, depths=(2, 2, 2, 2), heads=(1, 2, 4, 8)):
        super().__init__()
        self.model = SwinTransformer(
            img_size=(128, 192),
            window_size=2,
            embed_dim=dims,
            depths=depths,
            num_heads=heads,
            num_classes=0,
            drop_path_rate=0.0,
        )
        self.channels = tuple(dims * 2**i for i in range(4))
        self.norms = nn.ModuleList(nn.LayerNorm(c) for c in self.channels)
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.2)

    def official_state(self):
        state = swin_state(self.model)
        for i, norm in enumerate(self.norms):
            state[f'backbone.norm{i}.weight'] = norm.weight.detach()
            state[f'backbone.norm{i}.bias'] = norm.bias.detach()
        return state

    def forward(self, x):
        maps = self.model.eval().forward_intermediates(x, intermediates_only=True)
        return [
            norm(m.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
            for norm, m in zip(self.norms, maps, strict=True)
        ]


def window_index(side):
    """Row of the bias table for each pair of a window's cells."""
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing='ij')
    y, x = y.flatten(), x.flatten()
    rows = y[:, None] - y + side - 1
    columns = x[:, None] - x + side - 1
    return rows * (2 * side - 1) + columns
