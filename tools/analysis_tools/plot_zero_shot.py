"""Draw zero-shot results as bars, one panel a task and one bar a model.

The figure of KPU (https://arxiv.org/abs/2508.14707, Figure 3) from the JSON
files that tools/test.py leaves in its work directories:

    python tools/analysis_tools/plot_zero_shot.py zero_shot.pdf \
        KPU=work_dirs/zero_shot/kpu CLIP=work_dirs/zero_shot/clip.json

Each NAME=PATH is a model's result: a JSON file, or a directory whose newest
result counts. A NAME may be given again, for another task.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import matplotlib

matplotlib.use('Agg')
import matplotlib.pyplot as plt

from kpu_mm.utils.command_line import refuse, tool_parser

# metric: title of its panel and what makes it per cent
METRICS = {
    'accuracy/top1': ('ImageNet-1K, top-1', 1.0),
    'coco/bbox_mAP': ('COCO, box AP', 100.0),
    'mIoU': ('ADE20K, mIoU', 1.0),
}
Results = dict[str, dict[str, float]]


def parse_args() -> argparse.Namespace:
    parser = tool_parser(__doc__)
    parser.add_argument('out', help='picture: .png, .pdf or .svg')
    parser.add_argument('results', nargs='+', metavar='NAME=PATH', help="a model's result")
    return parser.parse_args()


def find_result(path: Path) -> Path:
    """A JSON file, or the newest one that a test left in a directory."""
    if path.is_file():
        return path
    # MMEngine names directory and file after the time
    found = [p for p in path.glob('*/*.json') if p.stem == p.parent.name]
    if not found:
        refuse(f'{path} is no JSON file and holds no result of a test.')
    return max(found)


def read_results(arguments: list[str]) -> Results:
    """For each metric, each model's value in per cent."""
    results: Results = {}
    for argument in arguments:
        name, equals, path = argument.partition('=')
        if not (name and equals and path):
            refuse(f'{argument}: write NAME=PATH.')
        file = find_result(Path(path))
        try:
            values = json.loads(file.read_text(encoding='utf-8'))
        except ValueError as error:
            refuse(f'{file} is not valid JSON: {error}')
        known = [key for key in METRICS if key in values]
        if not known:
            refuse(f'{file} has none of the metrics {list(METRICS)}.')
        for key in known:
            models = results.setdefault(key, {})
            if name in models:
                refuse(f'{name} has two results of {key}; give one.')
            models[name] = values[key] * METRICS[key][1]
    return results


def plot(results: Results) -> plt.Figure:
    """Panels in the order of METRICS; a model keeps its colour."""
    models = list(dict.fromkeys(m for row in results.values() for m in row))
    panels = [key for key in METRICS if key in results]
    figure, axes = plt.subplots(
        1, len(panels), figsize=(0.8 + 2.8 * len(panels), 3), squeeze=False, layout='constrained'
    )
    for axis, key in zip(axes[0], panels, strict=True):
        row = results[key]
        bars = axis.bar(
            list(row), list(row.values()), color=[f'C{models.index(name)}' for name in row]
        )
        axis.bar_label(bars, fmt='%.1f')
        axis.set_title(METRICS[key][0])
        axis.set_ylabel('%')
        axis.margins(y=0.12)
        axis.tick_params(axis='x', rotation=20)
    return figure


def main() -> None:
    args = parse_args()
    if Path(args.out).suffix not in ('.png', '.pdf', '.svg'):
        refuse(f'{args.out}: the name must end in .png, .pdf or .svg.')
    figure = plot(read_results(args.results))
    Path(args.out).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(args.out, dpi=200)
    print(f'Wrote {args.out}.')


if __name__ == '__main__':
    main()
