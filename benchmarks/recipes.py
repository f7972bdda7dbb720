"""Time and memory of a training step of each recipe, over those of KPU.

Models are those of the recipes at a quarter of their width, with all their
layers and random weights. Streams have 4 images, those of large ones 1, and
images above 224 pixels half their sides, for all recipes alike. Each recipe
is a process of its own; they take turns, so that a drifting machine slows all.

    python benchmarks/recipes.py [--rounds N] [--recipes NAME ...]
"""

from __future__ import annotations

import argparse
import ctypes
import statistics
import time
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.logging import MMLogger
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS, DefaultScope
from quarter_width import shrink

import kpu_mm  # noqa: F401
from kpu_mm.models.normalizers import fit_normalizers
from kpu_mm.registry import MODELS

CONFIGS = Path(__file__).parents[1] / 'configs' / 'distill'
RECIPES = (
    'kpu_vitb',
    'kpu_vitb_modern',
    'base-a_vitb',
    'base-b_vitb',
    'base-c_vitb',
    'clip-only_vitb',
    'grounding-dino-only_vitb',
    'unic_vitb',
    'dune_vitb',
    'siglino-256_vitb',
    'radio_vitb',
)


def make_batch(stream: Any) -> dict[str, Any]:
    """Random images of a stream's size, (B, 3, H, W) uint8."""
    decode = stream.dataset.get('dataset', stream.dataset).pipeline[0]
    if 'shortest' in decode:
        size = (decode.shortest // 2, decode.longest // 2)
    else:
        side = decode.size
        # whole patches, as mosaics want them
        size = (side if side <= 224 else side // 32 * 16,) * 2
    count = 1 if max(size) > 256 else 4
    return dict(images=torch.randint(256, (count, 3, *size)).byte(), mask=None)


def memory() -> tuple[float, float]:
    """Memory in use and its peak since the last call, in MB.

    On the CPU that of the whole process, as Linux counts it.
    """
    if torch.cuda.is_available():
        peak = torch.cuda.max_memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated() / 1e6, peak / 1e6
    # freed memory would hide what the next step allocates
    ctypes.CDLL(None).malloc_trim(0)
    lines = Path('/proc/self/status').read_text().splitlines()
    found = dict(line.split(':') for line in lines)
    Path('/proc/self/clear_refs').write_text('5')
    used, peak = (int(found[k].split()[0]) / 1e3 for k in ('VmRSS', 'VmHWM'))
    return used, peak


def serve(name: str, folder: Path, pipe: Connection) -> None:
    """Build a recipe, then take a step whenever asked for one."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    MMLogger.get_current_instance().setLevel('WARNING')
    DefaultScope.get_instance('benchmark', scope_name='mmengine')
    cfg = shrink(Config.fromfile(CONFIGS / f'{name}.py'), folder)
    model = MODELS.build(cfg.model).to(get_device()).train()
    options = dict(cfg.optim_wrapper, type='OptimWrapper')
    constructor = dict(
        type=options.pop('constructor'),
        paramwise_cfg=options.pop('paramwise_cfg', None),
        optim_wrapper_cfg=options,
    )
    optim_wrapper = OPTIM_WRAPPER_CONSTRUCTORS.build(constructor)(model)
    batches = {k: make_batch(v) for k, v in cfg.train_dataloader.items()}
    fit_normalizers(model, {k: [b] for k, b in batches.items()}, 1)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    pipe.send(trained)
    before, _ = memory()
    while pipe.recv():
        start = time.perf_counter()
        logs = model.train_step(dict(streams=batches), optim_wrapper)
        assert logs['loss'] == logs['loss'], f'{name} diverged'
        seconds = time.perf_counter() - start
        pipe.send((seconds, memory()[1] - before))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--recipes', nargs='+', default=RECIPES)
    args = parser.parse_args()
    context = get_context('fork')  # the libraries are loaded once
    pipes: dict[str, Connection] = {}
    names = dict.fromkeys((RECIPES[0], *args.recipes))
    with TemporaryDirectory() as folder:
        for name in names:
            pipes[name], other = context.Pipe()
            context.Process(target=serve, args=(name, Path(folder), other), daemon=True).start()
            other.close()  # so that a process that fails ends all
            trained = pipes[name].recv()
            print(f'{name:26}{trained / 1e6:6.1f} M parameters trained')
    rounds = []
    for i in range(args.rounds + 1):
        row = {}
        for name, pipe in pipes.items():
            pipe.send(True)
            row[name] = pipe.recv()
        if i:  # the first step allocates what later ones use again
            rounds.append(row)
    for pipe in pipes.values():
        pipe.send(False)
    print(f'\n{"recipe":26}    step   / KPU   memory  / KPU')
    base = {i: rounds[i][RECIPES[0]] for i in range(len(rounds))}
    for name in pipes:
        seconds = statistics.median(row[name][0] for row in rounds)
        ratio = statistics.median(row[name][0] / base[i][0] for i, row in enumerate(rounds))
        peak = max(row[name][1] for row in rounds)
        shared = peak / max(b[1] for b in base.values())
        print(f'{name:26}{seconds:7.2f}s{ratio:8.2f}{peak:7.0f}MB{shared:7.2f}')


if __name__ == '__main__':
    main()
