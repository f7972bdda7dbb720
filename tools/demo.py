"""Try a model on images: features, classes, boxes or pixels.

    python tools/demo.py features photo.jpg --model STUDENT --out-dir demo/
    python tools/demo.py zero-shot-detect photo.jpg --model STUDENT --classes cat dog

Predictions are printed as JSON, a line for each image, arrays by their
shapes; with --out-dir pictures go into vis/ and predictions into preds/.
"""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import redirect_stdout
from typing import Any, NamedTuple

from kpu_mm.utils.command_line import SettingsAction, refuse, tool_parser


class Task(NamedTuple):
    """An Inferencer and what it may be asked."""

    inferencer: str
    what: str
    build: tuple[str, ...]
    call: tuple[str, ...]


ENCODER = ('encoder', 'teacher', 'teacher_cfg')
TASKS = {
    'features': Task(
        'FeatureInferencer',
        'summary and maps of a student or its teacher',
        (*ENCODER, 'image_size'),
        (),
    ),
    'zero-shot-classify': Task(
        'ZeroShotClassificationInferencer',
        'which of --classes an image shows',
        ENCODER,
        ('classes', 'templates', 'topk'),
    ),
    'zero-shot-detect': Task(
        'ZeroShotDetectionInferencer',
        'where --classes, or what --text speaks of, are',
        ENCODER,
        ('classes', 'texts', 'threshold', 'text_threshold'),
    ),
    'zero-shot-segment': Task(
        'ZeroShotSegmentationInferencer',
        'which of --classes each pixel shows',
        ENCODER,
        ('classes', 'templates', 'score_maps'),
    ),
    'classify': Task('ClassificationInferencer', 'a trained classifier', (), ('topk',)),
    'detect': Task(
        'DetectionInferencer',
        'a trained detector; --classes or --text are for those that read it',
        (),
        ('threshold', 'classes', 'texts'),
    ),
    'segment': Task('SegmentationInferencer', 'a trained segmentor', (), ('score_maps',)),
}
OPTIONS: dict[str, dict[str, Any]] = dict(
    encoder=dict(
        choices=['student', 'teacher'],
        help='the student (default), or the untouched teacher in its place',
    ),
    teacher=dict(help="which of the student's teachers, by its name"),
    teacher_cfg=dict(
        nargs='+',
        action=SettingsAction,
        metavar='KEY=VALUE',
        help='arguments of the teacher that differ from those of the run, such as source=FOLDER',
    ),
    image_size=dict(type=int, help='longer side of what the model sees (default: 518)'),
    classes=dict(nargs='+', help='names of classes'),
    templates=dict(
        nargs='+', help="prompts with {} in the place of the name (default: open_clip's 80)"
    ),
    texts=dict(metavar='TEXT', help='a free text, in place of --classes'),
    threshold=dict(type=float, help='leave out boxes that score less'),
    text_threshold=dict(type=float, help='leave out tokens that score less from names'),
    topk=dict(type=int, help='how many classes to tell (default: all)'),
    score_maps=dict(choices=['probability', 'cosine'], help='add a map for each class'),
)


def add_task(tasks: Any, name: str, task: Task) -> None:
    parser = tasks.add_parser(name, help=task.what, description=task.what)
    parser.add_argument('inputs', nargs='+', help='images, folders, wildcards, videos or addresses')
    parser.add_argument(
        '--model',
        required=True,
        help='a folder of tools/export.py, a checkpoint of a distillation '
        'run, or a config by its path or name',
    )
    parser.add_argument('--weights', help='checkpoint for a config')
    for key in (*task.build, *task.call):
        flag = 'text' if key == 'texts' else key.replace('_', '-')
        parser.add_argument(f'--{flag}', dest=key, **OPTIONS[key])
    parser.add_argument('--out-dir', default='', help='folder for files')
    parser.add_argument('--device', help='cpu, cuda:0, ... (default: a GPU)')
    parser.add_argument('--batch-size', type=int, default=1)
    parser.add_argument('--max-pixels', type=int, help='largest image (default: 50000000)')
    parser.add_argument(
        '--video-stride',
        type=int,
        default=1,
        help='every how many frames of a video one is taken (default: 1)',
    )


def parse_args() -> argparse.Namespace:
    parser = tool_parser(__doc__)
    tasks = parser.add_subparsers(dest='task', required=True, metavar='TASK')
    for name, task in TASKS.items():
        add_task(tasks, name, task)
    return parser.parse_args()


def run(args: argparse.Namespace) -> list[dict[str, Any]]:
    # Imported late: a wrong argument is answered at once.
    from kpu_mm import apis

    task = TASKS[args.task]
    given = {k: v for k, v in vars(args).items() if v is not None}
    inferencer = getattr(apis, task.inferencer)(
        args.model,
        weights=args.weights,
        device=args.device,
        **{key: given[key] for key in task.build if key in given},
    )
    call = (*task.call, 'batch_size', 'out_dir', 'video_stride', 'max_pixels')
    results = inferencer(
        args.inputs,
        pred_out_dir=f'{args.out_dir}/preds' if args.out_dir else '',
        **{key: given[key] for key in call if key in given},
    )
    predictions: list[dict[str, Any]] = results['predictions']
    return predictions


def main() -> None:
    args = parse_args()
    try:
        # libraries print when they are imported
        with redirect_stdout(sys.stderr):
            predictions = run(args)
    except (ImportError, OSError, RuntimeError, TypeError, ValueError) as e:
        refuse(str(e))
    from kpu_mm.apis.base_inferencer import split_arrays

    for prediction in predictions:
        arrays, rest = split_arrays(prediction)
        shapes = {name: list(array.shape) for name, array in arrays.items()}
        print(json.dumps({**rest, **shapes}))


if __name__ == '__main__':
    main()
