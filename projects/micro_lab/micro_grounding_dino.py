"""The micro GroundingDINO: finds the digits that a text names."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import (
    box_convert,
    generalized_box_iou_loss,
    sigmoid_focal_loss,
)
from transformers import (
    BertConfig,
    GroundingDinoConfig,
    GroundingDinoForObjectDetection,
    ResNetBackbone,
    ResNetConfig,
)

from .captions import BERT_WORDS
from .dense_heads import augment
from .digit_prompt import Prompt, detect
from .scene_pool import SIZE, PoolBatch

BACKBONE = ResNetConfig(
    embedding_size=24,
    hidden_sizes=[24, 48, 96, 160],
    depths=[2, 2, 2, 1],
    layer_type='basic',
    out_features=['stage2', 'stage3', 'stage4'],
)
CHANNELS = (48, 96, 160)
# sides of digits, in pixels, that the cells of a stride look for
_SIDES = {8: (0, 22), 16: (15, 1000)}
_PRIOR = 4.0
# the library's own, of the losses of both decoder layers
_WEIGHTS = {'loss_ce': 2.0, 'loss_bbox': 5.0, 'loss_giou': 2.0}


def detector_config() -> GroundingDinoConfig:
    """Everything that is not the library's default."""
    return GroundingDinoConfig(
        backbone_config=BACKBONE,
        text_config=BertConfig(
            vocab_size=BERT_WORDS,
            hidden_size=64,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=128,
            max_position_embeddings=64,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        ),
        d_model=64,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=128,
        decoder_ffn_dim=128,
        num_queries=20,
        max_text_len=32,
        dropout=0.0,
        attention_dropout=0.0,
        activation_dropout=0.0,
        fusion_dropout=0.0,
        fusion_droppath=0.0,
        text_enhancer_dropout=0.0,
        auxiliary_loss=True,
        init_std=0.08,
    )


def build_detector(
    backbone: ResNetBackbone,
) -> GroundingDinoForObjectDetection:
    """A detector with a trained backbone and the rest at random.

    The library freezes a ResNet and starts with logits of hundreds, from
    which no focal loss recovers.

    Args:
        backbone: Of the config BACKBONE.
    """
    detector: Any = GroundingDinoForObjectDetection(detector_config())
    inner = detector.model
    inner.backbone.conv_encoder.model.load_state_dict(
        {
            name: value
            for name, value in backbone.state_dict().items()
            if not name.endswith('num_batches_tracked')
        }
    )
    detector.requires_grad_(True)
    nn.init.normal_(inner.query_position_embeddings.weight, std=0.5)
    for layer in inner.encoder.layers:
        nn.init.constant_(layer.fusion_layer.vision_param, 0.1)
        nn.init.constant_(layer.fusion_layer.text_param, 0.1)
    heads = {*detector.bbox_embed, inner.encoder_output_bbox_embed}
    for head in heads:
        nn.init.zeros_(head.layers[-1].weight)
        nn.init.zeros_(head.layers[-1].bias)
    # A logit is a product of text and image features: a shared direction
    # of both makes all of them about -_PRIOR.
    direction = F.normalize(torch.randn(detector.config.d_model), dim=0)
    text_norm = inner.encoder.layers[-1].text_enhancer_layer.layer_norm_after
    nn.init.constant_(text_norm.weight, 0.25)
    text_norm.bias.data.copy_(direction)
    for norm in (inner.decoder.layer_norm, inner.enc_output_norm):
        norm.bias.data.copy_(-_PRIOR * direction)
    return detector


class DetectorNet(nn.Module):
    """The detector and its losses.

    The library's own loss never reaches the heads that propose boxes, whose
    outputs it detaches; here every cell in the middle of a digit also learns
    to propose it.

    Args:
        detector: The model.
    """

    def __init__(self, detector: GroundingDinoForObjectDetection) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, batch: PoolBatch) -> dict[str, Tensor]:
        """Losses of a batch, all with the same prompt."""
        # with other prompts in a batch the library mixes up the classes
        prompt = Prompt(torch.randperm(10))
        boxes = box_convert(batch.boxes / SIZE, 'xyxy', 'cxcywh')
        labels = [
            {'class_labels': prompt.place[d[d >= 0]], 'boxes': b[d >= 0]}
            for d, b in zip(batch.digits, boxes, strict=True)
        ]
        out = detect(self.detector, augment(batch.images), prompt, labels)
        # the library's proposals are detached, or no proposals at all
        losses = {
            name: _WEIGHTS[kind] * value
            for name, value in out.loss_dict.items()
            if (kind := name.removesuffix('_0')) in _WEIGHTS
        }
        return {**losses, 'proposals': proposals_loss(out, batch, prompt)}


def proposals_loss(out: Any, batch: PoolBatch, prompt: Prompt) -> Tensor:
    """Focal, L1 and GIoU loss of the encoder's proposals.

    Args:
        out: Output of the detector.
        batch: Scenes.
        prompt: The text.
    """
    wanted = assign_cells(batch)
    owner = F.pad(
        wanted, (0, out.enc_outputs_class.shape[1] - wanted.shape[1]), value=-1
    )
    image, cell = (owner >= 0).nonzero(as_tuple=True)
    digit = owner[image, cell]
    logits = out.enc_outputs_class[..., : len(prompt.ids)]
    targets = torch.zeros_like(logits)
    targets[image, cell, prompt.column[batch.digits[image, digit]]] = 1
    positives = max(1, len(image))
    focal = sigmoid_focal_loss(logits, targets, reduction='sum') / positives
    found = out.enc_outputs_coord_logits[image, cell].sigmoid()
    boxes = batch.boxes[image, digit] / SIZE
    distance = F.l1_loss(
        found, box_convert(boxes, 'xyxy', 'cxcywh'), reduction='sum'
    )
    overlap = generalized_box_iou_loss(
        box_convert(found, 'cxcywh', 'xyxy'), boxes, reduction='sum'
    )
    return 2 * focal + (5 * distance + 2 * overlap) / positives


def assign_cells(batch: PoolBatch) -> Tensor:
    """Which digit of its scene each cell of strides 8 and 16 proposes.

    A cell takes the smallest digit that has the cell's centre in the
    central 60% of its box, or nearer to its centre than half a cell.

    Args:
        batch: Scenes.

    Returns:
        Numbers of digits from 0, -1 for none, (B, cells).
    """
    boxes = batch.boxes.float()
    centre = (boxes[..., :2] + boxes[..., 2:]) / 2
    sides = boxes[..., 2:] - boxes[..., :2]
    longest = sides.amax(-1)
    levels = []
    for stride, (low, high) in _SIDES.items():
        axis = torch.arange(stride / 2, SIZE, stride)
        points = torch.cartesian_prod(axis, axis).flip(1)  # x, y row by row
        reach = (0.3 * sides).clamp(min=stride / 2)
        near = (points[:, None] - centre[:, None]).abs() <= reach[:, None]
        fits = (batch.digits >= 0) & (longest > low) & (longest < high)
        cost = longest[:, None].where(near.all(-1) & fits[:, None], torch.inf)
        best, number = cost.min(-1)
        levels.append(number.masked_fill(best.isinf(), -1))
    return torch.cat(levels, 1)
