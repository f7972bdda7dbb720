"""ViT-Adapter evaluated straight from its equations, slowly.

Loops over heads, levels and points, convolutions as sums over kernel
positions; nothing is shared with the package but the names of weights.
"""

import math

import torch


def layer_norm(x, w, eps=1e-6):
    mean = x.mean(-1, keepdim=True)
    var = ((x - mean) ** 2).mean(-1, keepdim=True)
    return (x - mean) / torch.sqrt(var + eps) * w['weight'] + w['bias']


def batch_norm(x, w, eps=1e-5):
    mean = x.mean((0, 2, 3), keepdim=True)
    var = ((x - mean) ** 2).mean((0, 2, 3), keepdim=True)
    scale, shift = w['weight'][:, None, None], w['bias'][:, None, None]
    return (x - mean) / torch.sqrt(var + eps) * scale + shift


def linear(x, w):
    return x @ w['weight'].T + w['bias']


def gelu(x):
    return 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))


def conv3x3(x, kernel, stride=1, bias=None, depthwise=False):
    b, _, h, w = x.shape
    padded = x.new_zeros(b, x.shape[1], h + 2, w + 2)
    padded[:, :, 1:-1, 1:-1] = x
    out = 0
    for dy in range(3):
        for dx in range(3):
            tap = padded[:, :, dy : dy + h : stride, dx : dx + w : stride]
            k = kernel[:, :, dy, dx]
            if depthwise:
                out = out + tap * k[:, 0][:, None, None]
            else:
                out = out + torch.einsum('oc,bchw->bohw', k, tap)
    return out if bias is None else out + bias[:, None, None]


def max_pool(x):
    b, c, h, w = x.shape
    padded = x.new_full((b, c, h + 2, w + 2), -math.inf)
    padded[:, :, 1:-1, 1:-1] = x
    taps = [padded[:, :, dy : dy + h : 2, dx : dx + w : 2] for dy in range(3) for dx in range(3)]
    return torch.stack(taps).amax(0)


def sample(maps, x, y):
    """Bilinear value of (B, C, H, W) at cell coordinates (B, Q)."""
    _, c, h, w = maps.shape
    x0, y0 = torch.floor(x), torch.floor(y)
    out = 0
    for cx, cy in ((x0, y0), (x0 + 1, y0), (x0, y0 + 1), (x0 + 1, y0 + 1)):
        weight = (1 - (x - cx).abs()) * (1 - (y - cy).abs())
        inside = (cx >= 0) & (cx < w) & (cy >= 0) & (cy < h)
        index = cy.clamp(0, h - 1).long() * w + cx.clamp(0, w - 1).long()
        value = maps.flatten(2).gather(2, index[:, None].expand(-1, c, -1))
        out = out + value * (weight * inside)[:, None]
    return out  # (B, C, Q)


def attention(query, points, value, shapes, w, heads, num_points):
    b = len(query)
    v = linear(value, w['value_proj'])
    offsets = linear(query, w['sampling_offsets'])
    logits = linear(query, w['attention_weights'])
    dims = v.shape[-1] // heads
    outputs = []
    for m in range(heads):
        block = len(shapes) * num_points
        weights = logits[..., m * block : (m + 1) * block]
        weights = torch.exp(weights - weights.amax(-1, keepdim=True))
        weights = weights / weights.sum(-1, keepdim=True)
        start, head = 0, 0
        for level, (h, wd) in enumerate(shapes):
            maps = v[:, start : start + h * wd, m * dims : (m + 1) * dims]
            maps = maps.transpose(1, 2).reshape(b, dims, h, wd)
            start += h * wd
            for p in range(num_points):
                i = (m * len(shapes) + level) * num_points + p
                # a cell's centre lies at (index + 0.5) / size
                x = points[:, 0] * wd + offsets[..., 2 * i] - 0.5
                y = points[:, 1] * h + offsets[..., 2 * i + 1] - 0.5
                a = weights[..., level * num_points + p]
                head = head + sample(maps, x, y) * a[:, None]
        outputs.append(head)
    out = torch.cat(outputs, 1).transpose(1, 2)
    return linear(out, w['output_proj'])


def centres(shapes, dtype):
    points = [((j + 0.5) / w, (i + 0.5) / h) for h, w in shapes for i in range(h) for j in range(w)]
    return torch.tensor(points, dtype=dtype)


def to_maps(tokens, shapes):
    maps, start = [], 0
    for h, w in shapes:
        part = tokens[:, start : start + h * w]
        maps.append(part.transpose(1, 2).reshape(len(tokens), -1, h, w))
        start += h * w
    return maps


def to_tokens(maps):
    return torch.cat([m.reshape(*m.shape[:2], -1).transpose(1, 2) for m in maps], 1)


def resize(m, size):
    """Bilinear, half-pixel centres, borders repeated."""
    for axis, out in ((2, size[0]), (3, size[1])):
        n = m.shape[axis]
        at = (torch.arange(out, dtype=m.dtype) + 0.5) * n / out - 0.5
        at = at.clamp(0, n - 1)
        low = at.floor().long()
        high = (low + 1).clamp(max=n - 1)
        frac = at - low
        shape = [1, 1, 1, 1]
        shape[axis] = out
        frac = frac.reshape(shape)
        m = m.index_select(axis, low) * (1 - frac) + frac * m.index_select(axis, high)
    return m


def extractor(c, points, shapes, x, grid, w, heads, num_points):
    c = c + attention(
        layer_norm(c, w['query_norm']),
        points,
        layer_norm(x, w['feat_norm']),
        [grid],
        w['attn'],
        heads,
        num_points,
    )
    ffn = w['ffn']
    hidden = to_maps(linear(layer_norm(c, w['ffn_norm']), ffn['fc1']), shapes)
    hidden = [conv3x3(m, ffn['dwconv']['weight'], 1, ffn['dwconv']['bias'], True) for m in hidden]
    return c + linear(gelu(to_tokens(hidden)), ffn['fc2'])


def spatial_prior(image, w):
    x = image
    for conv, norm, stride in (('0', '1', 2), ('3', '4', 1), ('6', '7', 1)):
        x = conv3x3(x, w['stem'][conv]['weight'], stride)
        x = batch_norm(x, w['stem'][norm]).clamp(min=0)
    maps = [max_pool(x)]
    for i in range(3):
        stage = w['stages'][str(i)]
        x = conv3x3(maps[-1], stage['0']['weight'], 2)
        maps.append(batch_norm(x, stage['1']).clamp(min=0))
    projections = []
    for i, m in enumerate(maps):
        p = w['projections'][str(i)]
        projected = torch.einsum('oc,bchw->bohw', p['weight'][:, :, 0, 0], m)
        projections.append(projected + p['bias'][:, None, None])
    return projections


def nest(state):
    tree = {}
    for key, value in state.items():
        *path, leaf = key.split('.')
        node = tree
        for part in path:
            node = node.setdefault(part, {})
        node[leaf] = value
    return tree


def vit_adapter(image, vit, weights, heads, num_points, blocks):
    """Summary and four maps.

    Args:
        image: (B, 3, H, W), float64, sides divisible by the patch size.
        vit: transformers' Dinov2Model in float64.
        weights: The adapter's state dict, float64, BatchNorm in train mode.
        heads: Heads of the deformable attentions.
        num_points: Points per head and level.
        blocks: Interaction blocks.
    """
    w = nest(weights)
    patch = vit.config.patch_size
    grid = (image.shape[2] // patch, image.shape[3] // patch)
    fine, *coarse = spatial_prior(image, w['prior'])
    shapes = [tuple(m.shape[-2:]) for m in coarse]
    embed = w['level_embed']
    c = to_tokens([m + e[:, None, None] for m, e in zip(coarse, embed, strict=True)])
    level_points = centres(shapes, c.dtype)
    patch_points = centres([grid], c.dtype)
    h = vit.embeddings(image)
    layers = vit.encoder.layer
    outs = []
    for i in range(blocks):
        block = w['interactions'][str(i)]
        inj = block['injector']
        cls, x = h[:, :1], h[:, 1:]
        x = x + inj['gamma'] * attention(
            layer_norm(x, inj['query_norm']),
            patch_points,
            layer_norm(c, inj['feat_norm']),
            shapes,
            inj['attn'],
            heads,
            num_points,
        )
        h = torch.cat((cls, x), 1)
        span = len(layers) // blocks
        for layer in layers[i * span : (i + 1) * span]:
            h = layer(h)
        for e in block['extractors'].values():
            c = extractor(c, level_points, shapes, h[:, 1:], grid, e, heads, num_points)
        outs.append(to_maps(h[:, 1:], [grid])[0])
    summary = vit.layernorm(h)[:, 0]
    maps = to_maps(c, shapes)
    b, ch, mh, mw = maps[0].shape
    up = torch.einsum('bchw,coij->bohiwj', maps[0], w['up']['weight'])
    up = up.reshape(b, ch, 2 * mh, 2 * mw) + w['up']['bias'][:, None, None]
    maps = [fine + up[:, :, : fine.shape[2], : fine.shape[3]], *maps]
    return summary, [
        batch_norm(m + resize(o, m.shape[-2:]), w['norms'][str(i)])
        for i, (m, o) in enumerate(zip(maps, outs, strict=True))
    ]
