"""The micro GroundingDINO, which finds the digits that a text names."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import box_convert, generalized_box_iou_loss, sigmoid_focal_loss
from transformers import (
    BertConfig,
    BertTokenizerFast,
    GroundingDinoConfig,
    GroundingDinoForObjectDetection,
    GroundingDinoImageProcessor,
    GroundingDinoProcessor,
    ResNetBackbone,
    ResNetConfig,
)

from .dense_heads import augment, normalise
from .materials import DIGIT_WORDS
from .scene_pool import SIZE, Scenes

# GroundingDINO recognises these tokens by their ids in BERT's vocabulary.
_START, _END, _DOT = 101, 102, 1012
_BERT_IDS = {'[PAD]': 0, '[UNK]': 100, '[CLS]': _START, '[SEP]': _END}
_BERT_IDS |= {'[MASK]': 103, '.': _DOT, '?': 1029}
_BERT_WORDS = 1030
_FIRST_DIGIT = 200
BACKBONE = ResNetConfig(
    embedding_size=24,
    hidden_sizes=[24, 48, 96, 160],
    depths=[2, 2, 2, 1],
    layer_type='basic',
    out_features=['stage2', 'stage3', 'stage4'],
)
CHANNELS = (48, 96, 160)
# Sides of the digits, in pixels, that the cells of a stride propose.
_SIDES = {8: (0, 22), 16: (15, 1000)}
# All initial logits are about -_PRIOR.
_PRIOR = 4.0
# The library's own weights, used for the losses of both decoder layers.
_WEIGHTS = {'loss_ce': 2.0, 'loss_bbox': 5.0, 'loss_giou': 2.0}


def detection_tokenizer(folder: Path) -> BertTokenizerFast:
    """Build a BERT tokenizer that knows the digit words and no others.

    Args:
        folder: The folder for its vocabulary.
    """
    words = [f'[unused{i}]' for i in range(_BERT_WORDS)]
    for word, number in _BERT_IDS.items():
        words[number] = word
    words[_FIRST_DIGIT : _FIRST_DIGIT + 10] = DIGIT_WORDS
    path = folder / 'vocab.txt'
    path.write_text('\n'.join(words))
    return BertTokenizerFast(str(path))


class Prompt:
    """A text that names all ten digits.

    Args:
        order: The digits in the order of the text, (10,).

    Attributes:
        ids: Token ids of 'three. one. ...', (22,).
        column: Index of each digit's token in the text, (10,).
        place: Index of the phrase of each digit, (10,).
    """

    def __init__(self, order: Tensor) -> None:
        words = torch.stack([order + _FIRST_DIGIT, torch.full_like(order, _DOT)])
        edge = order.new_tensor
        # Words and full stops take turns: (2, 10) -> (20,).
        self.ids = torch.cat([edge([_START]), words.T.flatten(), edge([_END])])
        self.place = order.argsort()
        self.column = 1 + 2 * self.place


def detect(detector: Any, images: Tensor, prompt: Prompt, labels: Any = None) -> Any:
    """Run a detector and return its own output.

    Args:
        detector: GroundingDINO.
        images: Scenes, (B, H, W, 3) uint8.
        prompt: The text for all scenes.
        labels: Targets in the library's format. Defaults to None.
    """
    pixels = normalise(images)
    ids = prompt.ids.expand(len(images), -1)
    return detector(
        pixel_values=pixels,
        pixel_mask=torch.ones_like(pixels[:, 0], dtype=torch.long),
        input_ids=ids,
        token_type_ids=torch.zeros_like(ids),
        attention_mask=torch.ones_like(ids),
        labels=labels,
    )


def build_detector(backbone: ResNetBackbone) -> GroundingDinoForObjectDetection:
    """Build a detector from a trained backbone and random other weights.

    The library freezes a ResNet and starts with logits in the hundreds, from
    which the focal loss does not recover. Both are put right here.

    Args:
        backbone: A backbone of the config BACKBONE.
    """
    config = GroundingDinoConfig(
        backbone_config=BACKBONE,
        text_config=BertConfig(
            vocab_size=_BERT_WORDS,
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
    detector: Any = GroundingDinoForObjectDetection(config)
    inner = detector.model
    # The library's frozen batch norm has no num_batches_tracked.
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
    # A logit is the product of a text and an image feature. A direction that
    # both share makes all logits about -_PRIOR.
    direction = F.normalize(torch.randn(detector.config.d_model), dim=0)
    text_norm = inner.encoder.layers[-1].text_enhancer_layer.layer_norm_after
    nn.init.constant_(text_norm.weight, 0.25)
    text_norm.bias.data.copy_(direction)
    for norm in (inner.decoder.layer_norm, inner.enc_output_norm):
        norm.bias.data.copy_(-_PRIOR * direction)
    return detector


class DetectorNet(nn.Module):
    """The detector with its losses.

    The library detaches the outputs of the heads that propose boxes, so its
    loss does not train them. Here every cell in the middle of a digit also
    learns to propose that digit.

    Args:
        detector: The model.
    """

    def __init__(self, detector: GroundingDinoForObjectDetection) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, batch: Scenes) -> dict[str, Tensor]:
        """Return the losses of a batch, which has one prompt."""
        # With several prompts in a batch the library mixes up the classes.
        prompt = Prompt(torch.randperm(10))
        boxes = box_convert(batch.boxes / SIZE, 'xyxy', 'cxcywh')
        labels = [
            {'class_labels': prompt.place[d[d >= 0]], 'boxes': b[d >= 0]}
            for d, b in zip(batch.digits, boxes, strict=True)
        ]
        out = detect(self.detector, augment(batch.images), prompt, labels)
        # The library's losses of the proposals are left out, because their
        # inputs are detached.
        losses = {
            name: _WEIGHTS[kind] * value
            for name, value in out.loss_dict.items()
            if (kind := name.removesuffix('_0')) in _WEIGHTS
        }
        return {**losses, 'proposals': proposals_loss(out, batch, prompt)}


def proposals_loss(out: Any, batch: Scenes, prompt: Prompt) -> Tensor:
    """Return focal, L1 and GIoU loss of the encoder's proposals.

    Args:
        out: Output of the detector.
        batch: Scenes.
        prompt: The text.
    """
    wanted = assign_cells(batch)
    # The cells of coarser levels propose nothing.
    owner = F.pad(wanted, (0, out.enc_outputs_class.shape[1] - wanted.shape[1]), value=-1)
    image, cell = (owner >= 0).nonzero(as_tuple=True)
    digit = owner[image, cell]
    logits = out.enc_outputs_class[..., : len(prompt.ids)]
    targets = torch.zeros_like(logits)
    targets[image, cell, prompt.column[batch.digits[image, digit]]] = 1
    positives = max(1, len(image))
    focal = sigmoid_focal_loss(logits, targets, reduction='sum') / positives
    found = out.enc_outputs_coord_logits[image, cell].sigmoid()
    boxes = batch.boxes[image, digit] / SIZE
    distance = F.l1_loss(found, box_convert(boxes, 'xyxy', 'cxcywh'), reduction='sum')
    overlap = generalized_box_iou_loss(box_convert(found, 'cxcywh', 'xyxy'), boxes, reduction='sum')
    # The weights are those of _WEIGHTS.
    return 2 * focal + (5 * distance + 2 * overlap) / positives


def assign_cells(batch: Scenes) -> Tensor:
    """Assign a digit of its scene to each cell of strides 8 and 16.

    A cell proposes the smallest digit whose box has the cell's centre in its
    central 60 %, or less than half a cell from its centre.

    Args:
        batch: Scenes.

    Returns:
        Index of the digit in its scene, -1 for none, (B, cells).
    """
    boxes = batch.boxes.float()
    centre = (boxes[..., :2] + boxes[..., 2:]) / 2
    sides = boxes[..., 2:] - boxes[..., :2]
    longest = sides.amax(-1)
    levels = []
    for stride, (low, high) in _SIDES.items():
        axis = torch.arange(stride / 2, SIZE, stride)
        # (cells, 2), x and y of the cell centres, row by row
        points = torch.cartesian_prod(axis, axis).flip(1)
        reach = (0.3 * sides).clamp(min=stride / 2)
        # (B, cells, 5, 2)
        near = (points[:, None] - centre[:, None]).abs() <= reach[:, None]
        fits = (batch.digits >= 0) & (longest > low) & (longest < high)
        cost = longest[:, None].where(near.all(-1) & fits[:, None], torch.inf)
        best, number = cost.min(-1)
        levels.append(number.masked_fill(best.isinf(), -1))
    return torch.cat(levels, 1)


def export_grounding_dino(detector: GroundingDinoForObjectDetection, folder: Path) -> None:
    """Write fp16 weights, config, processor and tokenizer.

    Args:
        detector: The trained detector.
        folder: The folder to write.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # A copy, because half() changes the model in place.
    copy.deepcopy(detector).eval().half().save_pretrained(folder)
    images = GroundingDinoImageProcessor(size={'shortest_edge': SIZE, 'longest_edge': 2 * SIZE})
    GroundingDinoProcessor(images, detection_tokenizer(folder)).save_pretrained(folder)
