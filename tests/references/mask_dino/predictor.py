"""Query selection, box initialisation, decoder and its ten predictions.

Memories come in encoder order and are used in the opposite one.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .boxes import logit, logits_of_masks
from .layers import MLP, MSDeformAttn, box_code, cell_centres


class Prediction(NamedTuple):
    logits: Tensor  # (B, N, K)
    boxes: Tensor  # (B, N, 4)
    masks: Tensor  # (B, N, h, w) logits


class Output(NamedTuple):
    sets: list  # ten predictions of the N = DN + Nq queries
    intermediate: Prediction | None  # of the selected queries
    indices: Tensor | None  # (B, Nq) of the selected tokens
    references: Tensor  # (B, Nq, 4) initial box logits


class DecoderLayer(nn.Module):
    def __init__(self, dims, ffn, levels, heads):
        super().__init__()
        self.cross_attn = MSDeformAttn(dims, levels, heads, 4)
        self.norm1 = nn.LayerNorm(dims)
        self.self_attn = nn.MultiheadAttention(dims, heads)
        self.norm2 = nn.LayerNorm(dims)
        self.linear1 = nn.Linear(dims, ffn)
        self.linear2 = nn.Linear(ffn, dims)
        self.norm3 = nn.LayerNorm(dims)

    def attend(self, x, position, blocked):
        """Self-attention over (B, N, C), head by head."""
        heads, dims = self.self_attn.num_heads, x.shape[-1]
        weight, bias = (self.self_attn.in_proj_weight, self.self_attn.in_proj_bias)
        q, k, v = (
            F.linear(y, weight[i * dims : (i + 1) * dims]) + bias[i * dims : (i + 1) * dims]
            for i, y in enumerate((x + position, x + position, x))
        )
        outs = []
        for q_, k_, v_ in zip(
            q.chunk(heads, -1), k.chunk(heads, -1), v.chunk(heads, -1), strict=True
        ):
            scores = q_ @ k_.transpose(1, 2) / (dims // heads) ** 0.5
            if blocked is not None:
                scores = scores.masked_fill(blocked, -torch.inf)
            outs.append(scores.softmax(-1) @ v_)
        return self.self_attn.out_proj(torch.cat(outs, -1))

    def forward(self, x, position, reference, memory, shapes, blocked):
        x = self.norm2(x + self.attend(x, position, blocked))
        x = self.norm1(x + self.cross_attn(x + position, reference, memory, shapes))
        return self.norm3(x + self.linear2(F.relu(self.linear1(x))))


class Decoder(nn.Module):
    def __init__(self, dims, ffn, levels, heads, depth, norm, bbox_embed):
        super().__init__()
        self.layers = nn.ModuleList(DecoderLayer(dims, ffn, levels, heads) for _ in range(depth))
        self.norm = norm
        self.ref_point_head = MLP((2 * dims, dims, dims))
        self.bbox_embed = bbox_embed

    def forward(self, x, references, memory, shapes, blocked):
        """States before the norm, and the boxes each layer started from."""
        states, boxes = [], [references.sigmoid()]
        for layer, box_mlp in zip(self.layers, self.bbox_embed, strict=True):
            reference = boxes[-1].detach()
            position = self.ref_point_head(box_code(reference, x.shape[-1]))
            x = layer(x, position, reference, memory, shapes, blocked)
            states.append(x)
            boxes.append((box_mlp(x) + logit(reference)).sigmoid())
        return states, boxes[:-1]


class Predictor(nn.Module):
    def __init__(
        self,
        classes=80,
        queries=300,
        levels=3,
        box_init='bitmask',
        dims=256,
        mask_dims=256,
        ffn=2048,
        heads=8,
        depth=9,
        two_stage=True,
        background=False,
    ):
        super().__init__()
        self.queries, self.box_init = queries, box_init
        self.two_stage = two_stage
        if two_stage:
            self.enc_output = nn.Linear(dims, dims)
            self.enc_output_norm = nn.LayerNorm(dims)
        else:
            self.query_feat = nn.Embedding(queries, dims)
            self.query_embed = nn.Embedding(queries, 4)
        self.class_embed = nn.Linear(dims, classes + background)
        self.label_enc = nn.Embedding(classes, dims)
        self.mask_embed = MLP((dims, dims, dims, mask_dims))
        self.decoder_norm = nn.LayerNorm(dims)
        self._bbox_embed = MLP((dims, dims, dims, 4))
        self.bbox_embed = nn.ModuleList([self._bbox_embed] * depth)
        self.decoder = Decoder(dims, ffn, levels, heads, depth, self.decoder_norm, self.bbox_embed)

    def predict(self, states, boxes, mask_features):
        """Class and mask heads, which take the norm of what they get."""
        normed = self.decoder_norm(states)
        masks = torch.einsum('bnc,bchw->bnhw', self.mask_embed(normed), mask_features)
        return Prediction(self.class_embed(normed), boxes, masks)

    def proposals(self, maps):
        """Proposal logits (S, 4) and which of them are valid (S,)."""
        parts = []
        for level, x in enumerate(maps):
            centres = cell_centres(*x.shape[2:], x.dtype)
            sizes = torch.full_like(centres, 0.05 * 2**level)
            parts.append(torch.cat((centres, sizes), -1))
        boxes = torch.cat(parts)
        valid = ((boxes > 0.01) & (boxes < 0.99)).all(-1)
        logits = torch.log(boxes / (1 - boxes))
        return torch.where(valid[:, None], logits, torch.inf), valid

    def select(self, memory, maps, mask_features):
        proposal, valid = self.proposals(maps)
        memory = torch.where(valid[:, None], memory, memory.new_zeros(()))
        tokens = self.enc_output_norm(self.enc_output(memory))
        scores = self.class_embed(tokens).amax(-1)
        logits = self._bbox_embed(tokens) + proposal
        top = scores.topk(self.queries, dim=1).indices
        content = torch.stack([t[i] for t, i in zip(tokens, top, strict=True)])
        logits = torch.stack([x[i] for x, i in zip(logits, top, strict=True)])
        guess = self.predict(content, logits.sigmoid(), mask_features)
        references = logits.detach()
        if self.box_init != 'no':
            references = logits_of_masks(guess.masks.detach(), self.box_init)
        return guess, content.detach(), references, top

    def forward(self, memories, mask_features, denoising=None):
        """``denoising``: content (B, D, C), logits (B, D, 4), mask."""
        maps = memories[::-1]
        shapes = [m.shape[2:] for m in maps]
        memory = torch.cat([m.flatten(2).transpose(1, 2) for m in maps], 1)
        guess = top = None
        if self.two_stage:
            guess, content, references, top = self.select(memory, maps, mask_features)
        else:
            b = len(memory)
            content = self.query_feat.weight.expand(b, -1, -1)
            references = self.query_embed.weight.expand(b, -1, -1)
        queries, start, blocked = content, references, None
        if denoising is not None:
            extra, boxes, blocked = denoising
            queries = torch.cat((extra, content), 1)
            start = torch.cat((boxes, references), 1)
        states, before = self.decoder(queries, start, memory, shapes, blocked)
        sets = [self.predict(queries, start.sigmoid(), mask_features)]
        for x, box in zip(states, before, strict=True):
            x = self.decoder_norm(x)
            delta = self._bbox_embed(x)
            boxes = (delta + logit(box)).sigmoid()
            sets.append(self.predict(x, boxes, mask_features))
        return Output(sets, guess, top, references)
