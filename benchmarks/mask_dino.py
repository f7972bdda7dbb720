"""Time of a Mask DINO training step and of inference, part by part.

Parts are timed within the same step: on a GPU by the clock, on a CPU by the
processor time of this process, which a busy machine does not lengthen. Images
and objects are random, weights untrained.

    python benchmarks/mask_dino.py CONFIG [--shape H W] [--batch N]
        [--objects M] [--rounds N]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData
from torch import nn

import kpu_mm  # noqa: F401
from kpu_mm.registry import MODELS

Times = dict[str, float]


class Clock:
    """Seconds spent in named parts, GPU work included."""

    def __init__(self) -> None:
        self.times: Times = defaultdict(float)
        self.started: Times = {}

    def now(self) -> float:
        """Seconds, once the GPU has done what it was given."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
            return time.perf_counter()
        return time.process_time()

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Time a block."""
        start = self.now()
        yield
        self.times[name] += self.now() - start

    def watch(self, module: nn.Module, name: str) -> None:
        """Time a module's forward."""

        def start(*_: Any) -> None:
            self.started[name] = self.now()

        def stop(*_: Any) -> None:
            self.times[name] += self.now() - self.started[name]

        module.register_forward_pre_hook(start)
        module.register_forward_hook(stop)

    def wrap(self, function: Callable[..., Any], name: str) -> Any:
        """The function, timed."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            with self.part(name):
                return function(*args, **kwargs)

        return timed

    def take(self) -> Times:
        """The times since the last call."""
        times, self.times = dict(self.times), defaultdict(float)
        return times


def watched(model: nn.Module) -> Clock:
    clock, head = Clock(), model.bbox_head
    clock.watch(model.backbone, 'backbone')
    clock.watch(head.pixel_decoder, 'pixel decoder')
    clock.watch(head.queries, 'query selection')
    clock.watch(head.decoder, 'query decoder')
    clock.watch(head.denoising, 'denoising')
    clock.watch(head.criterion, 'losses')
    head.criterion.matcher = clock.wrap(head.criterion.matcher, 'matching')
    head.postprocess = clock.wrap(head.postprocess, 'results')
    return clock


def random_sample(shape: tuple[int, int], objects: int, classes: int, device: str) -> DetDataSample:
    """An image's objects: rectangles of a tenth to a half of its sides."""
    height, width = shape
    sides = torch.tensor((width, height), dtype=torch.float32)
    sizes = (torch.rand(objects, 2) * 0.4 + 0.1) * sides
    corners = torch.rand(objects, 2) * (sides - sizes)
    boxes = torch.cat((corners, corners + sizes), 1)
    masks = torch.zeros(objects, height, width, dtype=torch.uint8)
    for mask, (x0, y0, x1, y1) in zip(masks, boxes.long().tolist(), strict=True):
        mask[y0:y1, x0:x1] = 1
    sample = DetDataSample(
        metainfo=dict(
            batch_input_shape=shape, img_shape=shape, ori_shape=shape, scale_factor=(1.0, 1.0)
        )
    )
    sample.gt_instances = InstanceData(
        bboxes=boxes.to(device),
        labels=torch.randint(classes, (objects,), device=device),
        masks=BitmapMasks(masks.numpy(), height, width),
    )
    return sample


def report(title: str, rounds: list[Times]) -> None:
    """Median seconds and shares of all parts; ``whole`` is their sum."""
    whole = statistics.median(times['whole'] for times in rounds)
    print(f'{title}: {whole:.3f} s, median of {len(rounds)}')
    names = [name for name in rounds[0] if name != 'whole']
    for times in rounds:
        times['rest'] = times['whole'] - sum(times[name] for name in names)
    for name in (*names, 'rest'):
        seconds = statistics.median(times[name] for times in rounds)
        share = statistics.median(times[name] / times['whole'] for times in rounds)
        print(f'  {name:16}{seconds:8.3f} s {share:7.1%}')


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config')
    parser.add_argument('--shape', type=int, nargs=2, default=(512, 512))
    parser.add_argument('--batch', type=int, default=2)
    parser.add_argument('--objects', type=int, default=7)
    parser.add_argument('--rounds', type=int, default=5)
    args = parser.parse_args()
    cfg = Config.fromfile(args.config)
    init_default_scope(cfg.default_scope)
    torch.manual_seed(0)
    device, shape = get_device(), tuple(args.shape)
    model = MODELS.build(cfg.model).to(device)
    clock = watched(model)
    images = torch.randn(args.batch, 3, *shape, device=device)
    samples = [
        random_sample(shape, args.objects, model.bbox_head.num_things_classes, device)
        for _ in range(args.batch)
    ]
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4)

    def step() -> Times:
        with clock.part('whole'):
            losses = model.loss(images, samples)
            with clock.part('backward'):
                sum(losses.values()).backward()
            with clock.part('optimiser'):
                optimizer.step()
                optimizer.zero_grad()
        times = clock.take()
        times['losses'] -= times['matching']
        return times

    @torch.no_grad()
    def infer() -> Times:
        with clock.part('whole'):
            model.predict(images, samples)
        return clock.take()

    what = f'{args.batch} images of {shape[0]} x {shape[1]}'
    model.train()
    step()
    steps = [step() for _ in range(args.rounds)]
    report(f'training step, {what}, {args.objects} objects each', steps)
    model.eval()
    infer()
    passes = [infer() for _ in range(args.rounds)]
    report(f'inference, {what}', passes)
    seconds = statistics.median(times['whole'] for times in passes)
    print(f'  {args.batch / seconds:.2f} images/s')


if __name__ == '__main__':
    main()
