"""Rehearse a run without its GPU: does it run, does it fit, how long does it take.

    python tools/analysis_tools/rehearse.py configs/distill/kpu_vitb.py --gpu a100

One step of the config's model is run at its own sizes, without weights, data
or a GPU: the GPU's tensors have shapes and no values (fake_gpu.py). Times are
estimates; --real measures a step on a GPU that is there.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from mmengine.config import Config
from mmengine.logging import MessageHub
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DefaultScope
from rehearsal.fake_gpu import where
from rehearsal.made_up_data import use_made_up_data
from rehearsal.report import GIB, GPUS, Report, show
from rehearsal.stand_ins import fake_gpu
from rehearsal.untrained import untrained
from torch import nn

from kpu_mm.datasets import MultiStreamLoader, build_stream
from kpu_mm.models.frozen import EvalModule
from kpu_mm.models.normalizers import BaseNormalizer
from kpu_mm.registry import HOOKS, MODELS
from kpu_mm.utils.command_line import (
    add_config_arguments,
    positive,
    read_config,
    refuse,
    tool_parser,
)

# Hooks of this project that take part in every step.
STEP_HOOKS = ('NonFiniteHook', 'ModuleClipHook', 'SecondLossHook')


class Run(NamedTuple):
    """A step that is ready to be taken."""

    model: Any
    optim_wrapper: Any
    batch: Any
    hooks: Sequence[Any]
    runner: Any

    def step(self) -> None:
        """Take it, as the train loop does."""
        outputs = self.model.train_step(self.batch, self.optim_wrapper)
        for hook in self.hooks:
            hook.after_train_iter(self.runner, 0, self.batch, outputs)


def open_data(cfg: Config) -> tuple[Any, dict[str, int]]:
    """A batch of made-up images, and the batch size of each stream."""
    with tempfile.TemporaryDirectory() as folder:
        given = use_made_up_data(cfg.train_dataloader.to_dict(), Path(folder))
        if 'dataset' in given:
            stream: Any = build_stream(**given)
            return next(iter(stream)), {'images': stream.batch_size}
        loader = MultiStreamLoader(given)
        sizes = {name: stream.batch_size for name, stream in loader.loaders.items()}
        return next(iter(loader)), sizes


def build_model(cfg: Config) -> Any:
    """The config's model on the CPU, without weights."""
    with untrained():
        model = MODELS.build(cfg.model).train()
    for module in model.modules():
        if isinstance(module, BaseNormalizer):
            module.fitted.fill_(True)
    return model


def prepare(cfg: Config, model: Any, batch: Any) -> Run:
    """Build what takes a step, once the model is on its device."""
    optim_wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    optim_wrapper.initialize_count_status(model, 0, cfg.train_cfg.max_iters)
    configs = [*cfg.get('default_hooks', {}).values(), *cfg.get('custom_hooks', [])]
    names = [str((config or {}).get('type', '')).rpartition('.')[2] for config in configs]
    hooks = [
        HOOKS.build(config)
        for name, config in zip(names, configs, strict=True)
        if name in STEP_HOOKS
    ]
    hub = MessageHub.get_instance('rehearsal')
    runner = SimpleNamespace(
        model=model, optim_wrapper=optim_wrapper, message_hub=hub, work_dir='', iter=0
    )
    for hook in hooks:
        hook.before_train(runner)
    return Run(model, optim_wrapper, batch, hooks, runner)


def resume(run: Run) -> None:
    """Bring the optimiser's state to where a resumed run has it."""
    optimizer = run.optim_wrapper.optimizer
    for group in optimizer.param_groups:
        for p in group['params']:
            p.grad = torch.zeros_like(p)
    optimizer.step()
    optimizer.zero_grad()
    state = optimizer.state_dict()
    for values in state['state'].values():
        for name, value in values.items():
            if isinstance(value, torch.Tensor):
                # as MMEngine loads a checkpoint
                values[name] = value.to('cuda')
    optimizer.load_state_dict(state)


def cast_frozen(modules: Iterable[nn.Module]) -> None:
    """Let frozen models have their copies for autocast, as after a first step."""
    for module in modules:
        if isinstance(module, EvalModule):
            with module.in_autocast(torch.device('cuda')):
                pass


def part_of(name: str) -> str:
    """The part of the report that a module belongs to, by its name."""
    first, *rest = name.split('.')
    if first == 'links':
        return 'projectors'
    if first == 'align':
        return 'losses'
    if first == 'tasks':
        return '.'.join([first, *rest[:1]])
    return f'{first}.sentinel' if rest[:1] == ['sentinel'] else first


def parts_of(model: Any) -> dict[nn.Module, str]:
    """The part that each module of a model belongs to."""
    parts = {module: part_of(name) for name, module in model.named_modules() if name}
    for name, teacher in getattr(model, 'teachers', {}).items():
        parts.update(dict.fromkeys(teacher.modules(), f'teachers.{name}'))
    return parts


def rehearse(cfg: Config, gpus: int = 1) -> Report:
    """Take one step of a config's run on a GPU that is not there, of several or one."""
    batch, sizes = open_data(cfg)
    model = build_model(cfg)
    teachers = list(getattr(model, 'teachers', {}).values())
    with fake_gpu(parts_of(model)) as gpu:
        with gpu.part('weights'):
            model.to('cuda')
            gpu.prepare(p for p in model.parameters() if p.requires_grad)
        run = prepare(cfg, model, batch)
        with gpu.part('optimizer'):
            resume(run)
        with run.optim_wrapper.optim_context(model):
            with gpu.part('weights'):
                cast_frozen(model.modules())
            with gpu.part('teachers'):
                cast_frozen(teachers)
        optimizer = run.optim_wrapper.optimizer
        # before the hooks of others, and after them
        optimizer.register_step_pre_hook(lambda *_: gpu.parts.append('optimizer'))
        optimizer.register_step_post_hook(lambda *_: gpu.parts.pop())
        gpu.forget()
        run.step()
        memory = dict(gpu.peak)
    # they went to the GPU with the model
    moved = sum(_size_of([*t.parameters(), *t.buffers()]) for t in teachers)
    memory['weights'] -= moved
    memory['teachers'] = memory.get('teachers', 0) + moved
    if gpus > 1:
        memory['buckets of DDP'] = _size_of(p for p in model.parameters() if p.requires_grad)
    memory = {part: size for part, size in memory.items() if size}
    waits, mistakes = dict(gpu.waits), dict(gpu.mistakes)
    iterations = cfg.train_cfg.max_iters
    return Report(gpu.kernels, waits, mistakes, memory, sizes, iterations, trained_of(model))


def trained_of(model: Any) -> dict[str, int]:
    """Trained parameters of the student or backbone, and of all else."""
    own = dict(student=0, rest=0)
    for name, p in model.named_parameters():
        part = 'student' if name.startswith(('student.', 'backbone.')) else 'rest'
        own[part] += p.numel() if p.requires_grad else 0
    return own


def _size_of(tensors: Iterable[torch.Tensor]) -> int:
    return sum(x.numel() * x.element_size() for x in tensors)


def measure(cfg: Config, steps: int = 10) -> tuple[float, int]:
    """Median seconds of steps on a GPU that is there, and the most bytes in use."""
    run = prepare(cfg, build_model(cfg).to('cuda'), open_data(cfg)[0])
    seconds = []
    for _ in range(3 + steps):
        torch.cuda.synchronize()
        start = time.perf_counter()
        run.step()
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[3:]), torch.cuda.max_memory_allocated()


def parse_args() -> argparse.Namespace:
    parser = tool_parser(__doc__)
    add_config_arguments(parser)
    parser.add_argument('--gpu', choices=GPUS, default='h100', help='which must hold the batch')
    parser.add_argument('--gpus', type=positive, default=8, help='GPUs of the run (default: 8)')
    parser.add_argument(
        '--real', action='store_true', help='also measure steps on the GPU of this machine'
    )
    parser.add_argument(
        '--json',
        type=Path,
        metavar='FILE',
        help='also write bytes of the peak, trained parameters, and seconds a step',
    )
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    cfg = read_config(args.config, args.cfg_options)
    if args.real and not torch.cuda.is_available():
        refuse('--real: torch sees no GPU here; leave it out to estimate.')
    if 'max_iters' not in (cfg.get('train_cfg') or {}) or not cfg.get('optim_wrapper'):
        refuse(f'{args.config} trains nothing: it needs train_cfg.max_iters and optim_wrapper.')
    # What KPURunner.setup_env sets of the GPU; report.py counts by it, too.
    tf32 = cfg.get('env_cfg', {}).get('tf32')
    torch.set_float32_matmul_precision('high' if tf32 else 'highest')
    DefaultScope.get_instance('rehearsal', scope_name=cfg.get('default_scope', 'mmengine'))
    try:
        # first, as a process that had no GPU gets none
        measured = measure(cfg) if args.real else None
        report = rehearse(cfg, args.gpus)
    except Exception as error:
        if os.environ.get('KPU_MM_TRACEBACK') == '1':
            raise
        text = ' '.join(str(error).split())[:500]
        refuse(f'{args.config}: {type(error).__name__} at {where(error)}: {text}')
    gpu = GPUS[args.gpu]
    if args.json:
        found = dict(
            peak=report.peak,
            trained=report.trained,
            seconds={k: report.seconds(g) for k, g in GPUS.items()},
        )
        args.json.write_text(json.dumps(found))
    show(report, gpu, args.gpus)
    if measured is not None:
        seconds, peak = measured
        print(
            f'Measured here: {seconds:.3f} s a step (estimate {report.seconds(gpu):.3f}), '
            f'{peak / GIB:.1f} GiB (counted {report.peak / GIB:.1f}).'
        )
    if report.mistakes or report.share_that_fits(gpu) < 1:
        raise SystemExit(1)


if __name__ == '__main__':
    main()
