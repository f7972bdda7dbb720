"""Test a checkpoint with the metrics that its config names.

    python tools/test.py configs/downstream/coco/mask-dino_kpu-vitb_frozen-80k.py iter_80000.pth

For several GPUs see tools/dist_test.sh and tools/slurm_test.sh.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

from config_errors import explaining
from mmengine.config import Config, ConfigDict
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.runner import Runner
from torch import nn

from kpu_mm.utils.command_line import (
    add_run_arguments,
    build_runner,
    end_together,
    read_run_config,
    refuse,
    tool_parser,
    use_gloo_without_gpu,
)
from kpu_mm.weights.state_dict import settle_unused

# By default scope: the visualizer and the arguments of the hook that draws.
VISUALIZERS = {
    'mmdet': 'DetLocalVisualizer',
    'mmseg': 'SegLocalVisualizer',
    'mmpretrain': 'UniversalVisualizer',
}
HOOKS = {
    'mmdet': dict(type='DetVisualizationHook', draw=True),
    'mmseg': dict(type='SegVisualizationHook', draw=True),
    'mmpretrain': dict(type='VisualizationHook', enable=True, interval=1),
}


def parse_args() -> argparse.Namespace:
    parser = tool_parser(__doc__)
    add_run_arguments(parser)
    parser.add_argument(
        'checkpoint',
        help="checkpoint file; 'none' for a model whose config names all "
        'its weights: k-NN and zero-shot evaluation',
    )
    parser.add_argument(
        '--out',
        help='write the predictions to this .pkl file; with several tasks, '
        "each to its own, with the task's name before the .pkl",
    )
    parser.add_argument('--show-dir', help='draw the predictions into this directory')
    parser.add_argument(
        '--tta',
        action='store_true',
        help="average over the config's tta_pipeline with its tta_model",
    )
    parser.add_argument('--amp', action='store_true', help='run the model in autocast')
    return parser.parse_args()


def is_joint(cfg: Config) -> bool:
    """Whether the config tests several tasks."""
    return str(cfg.test_cfg.get('type')).endswith('MultiTaskTestLoop')


def dump_predictions(cfg: Config, out: str) -> None:
    """Add to the metrics one that writes predictions to a file."""
    path = Path(out)
    if path.suffix not in ('.pkl', '.pickle'):
        refuse(f'--out {out}: the name of the file must end in .pkl.')
    if not is_joint(cfg):
        cfg.test_evaluator = with_dump(cfg.test_evaluator, cfg.get('default_scope'), path)
        return
    cfg.test_evaluator = {
        task: with_dump(
            evaluator,
            cfg.model.tasks[task].get('_scope_'),
            path.with_suffix(f'.{task}{path.suffix}'),
        )
        for task, evaluator in cfg.test_evaluator.items()
    }


def with_dump(evaluator: Any, scope: str | None, path: Path) -> Any:
    """An evaluator's config with one more metric, the toolbox's dump."""
    kind = 'mmdet.DumpDetResults' if scope == 'mmdet' else 'DumpResults'
    dump = ConfigDict(type=kind, out_file_path=str(path))
    if isinstance(evaluator, dict) and 'metrics' in evaluator:
        return {**evaluator, 'metrics': with_metrics(evaluator.metrics, dump)}
    return with_metrics(evaluator, dump)


def with_metrics(metrics: Any, *more: Any) -> list[Any]:
    return [*(metrics if isinstance(metrics, list) else [metrics]), *more]


def draw_predictions(cfg: Config, folder: str) -> None:
    """Let the toolbox's own hook draw every image into a folder."""
    scope = cfg.get('default_scope')
    if is_joint(cfg) or scope not in HOOKS:
        refuse(
            '--show-dir: pictures are drawn by the toolbox of one task; test '
            "with a single task's config, which takes the joint checkpoint "
            f'too (default_scope one of {list(HOOKS)}, not {scope!r}).'
        )
    # Absolute, or MMDetection puts it below the work directory.
    folder = str(Path(folder).resolve())
    hook = {**cfg.default_hooks.get('visualization', {}), **HOOKS[scope]}
    if scope == 'mmdet':
        hook['test_out_dir'] = folder
    elif scope == 'mmpretrain':
        hook['out_dir'] = folder
    else:
        cfg.visualizer.save_dir = folder
    cfg.default_hooks.visualization = hook
    if cfg.visualizer.type == 'Visualizer':
        cfg.visualizer.type = VISUALIZERS[scope]


def augment(cfg: Config) -> None:
    """Test with the config's test-time augmentation."""
    if is_joint(cfg):
        refuse("--tta: test with a single task's config instead.")
    missing = [k for k in ('tta_model', 'tta_pipeline') if k not in cfg]
    if missing:
        refuse(
            f'--tta: the config has no {" and no ".join(missing)}; define '
            "them as the toolbox's own configs do."
        )
    cfg.model = ConfigDict(**cfg.tta_model, module=cfg.model)
    dataset = cfg.test_dataloader.dataset
    while 'dataset' in dataset:
        dataset = dataset.dataset
    dataset.pipeline = cfg.tta_pipeline


def load_strictly(runner: Runner) -> None:
    """Refuse checkpoints whose weights are not those of the model."""
    model = runner.model
    # MMEngine loads into what is wrapped, past the hooks of the wrappers.
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    model.register_load_state_dict_pre_hook(settle_unused)
    load = partial(runner.load_checkpoint, strict=True)

    def load_or_refuse(filename: str, **kwargs: Any) -> dict[str, Any]:
        try:
            return load(filename, **kwargs)
        except (RuntimeError, ValueError) as error:
            # a whole sentence about the file itself, such as damage
            if str(error).startswith(f"'{filename}'"):
                refuse(str(error))
            if isinstance(error, ValueError):
                refuse(f'{filename} does not fit the config: {error}')
            lines = [line for line in str(error).splitlines() if line.strip()]
            reason = '; '.join(line.strip()[:200] for line in lines[:4])
            refuse(f'{filename} does not fit the config: {reason}')

    runner.load_checkpoint = load_or_refuse


def find_checkpoint(cfg: Config, path: str) -> str | None:
    """The checkpoint, or None where the config names all weights."""
    if path == 'none':
        return cfg.get('load_from')
    if not Path(path).is_file():
        refuse(f'there is no checkpoint {path}.')
    return path


def refuse_random_weights(cfg: Config, model: nn.Module) -> None:
    """Refuse a test without a checkpoint of a model that needs one."""
    untrained = str(cfg.test_cfg.get('type')).endswith('KNNTestLoop')
    if not untrained and model.state_dict():
        refuse(
            'checkpoint none: the model of this config has weights that only '
            'a checkpoint gives; pass one.'
        )


def main() -> None:
    args = parse_args()
    cfg = read_run_config(args)
    if cfg.get('test_cfg') is None or cfg.get('test_dataloader') is None:
        refuse(f'{args.config} has no test_cfg or no test_dataloader.')
    cfg.load_from = find_checkpoint(cfg, args.checkpoint)
    cfg.resume = False
    if args.out:
        dump_predictions(cfg, args.out)
    if args.show_dir:
        draw_predictions(cfg, args.show_dir)
    if args.tta:
        augment(cfg)
    if args.amp:
        cfg.test_cfg.fp16 = True
    use_gloo_without_gpu(cfg)
    with explaining(cfg, args.config):
        runner = build_runner(cfg)
        load_strictly(runner)
        if cfg.load_from is None:
            refuse_random_weights(cfg, runner.model)
        runner.test()
    end_together()


if __name__ == '__main__':
    main()
