"""The paper's tables and figures at micro size, on digit scenes.

Distils every row's student from the micro teachers, trains the decoders on
it, and writes a report with the published figures beside. Kill it whenever
you like: the same command goes on where it was. The same seeds give the same
numbers.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from mmengine.config import Config

from .jobs import Job, JobError, run_jobs
from .paper_rows import Row, all_rows
from .report import write_report

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = Path(__file__).resolve().parent / 'configs'


class Plan:
    """Which jobs there are.

    Args:
        folder: Where everything is kept.
        iters: Iterations of distillations ('distil') and of the decoders'
            trainings ('tasks'), where they are not their configs' own.
        scenes: Labelled scenes of the splits, 'train' and 'test'.
    """

    def __init__(
        self, folder: Path, iters: dict[str, int], scenes: dict[str, int]
    ) -> None:
        self._folder = folder
        self._iters = iters
        self._scenes = scenes

    def jobs(self, seeds: list[int]) -> Iterator[Job]:
        """All jobs, seed by seed; each after those that it needs.

        Args:
            seeds: Of the trainings.
        """
        yield self._write_scenes()
        yield self._evaluate_teachers()
        for seed in seeds:
            students = set()
            for row in all_rows().values():
                if row.distilled and row.distilled not in students:
                    students.add(row.distilled)
                    yield self._distil(row.distilled, seed)
                    yield self._evaluate(row.distilled, seed)
                yield self._train_tasks(row, seed)

    @property
    def scenes(self) -> Path:
        """Folder of the labelled scenes."""
        return self._folder / 'scenes'

    @property
    def teachers(self) -> Path:
        """Folder of what was found of the teachers."""
        return self._folder / 'teachers'

    def run(self, name: str, seed: int) -> Path:
        """Folder of a training.

        Args:
            name: Of a student, or the key of a row.
            seed: The seed.
        """
        return self._folder / f'seed_{seed}' / name

    def _write_scenes(self) -> Job:
        counts = [f'--{s}={n}' for s, n in self._scenes.items()]
        command = _script('make_digit_scenes', self.scenes, *counts)
        return Job(self.scenes, command)

    def _distil(self, name: str, seed: int) -> Job:
        config = CONFIGS / f'{name}.py'
        return self._train(self.run(name, seed), config, seed, 'distil')

    def _evaluate(self, name: str, seed: int) -> Job:
        run = self.run(name, seed)
        command = self._evaluation(run, CONFIGS / f'{name}.py')
        return Job(run / 'judged', command, (run,))

    def _evaluate_teachers(self) -> Job:
        return Job(self.teachers, self._evaluation(self.teachers))

    def _evaluation(self, *what: Path) -> list[str]:
        pools = f'--pools={self._folder / "pools"}'
        count = f'--count={self._scenes["test"]}'
        return _script('evaluate', *what, pools, count)

    def _train_tasks(self, row: Row, seed: int) -> Job:
        config = CONFIGS / f'{row.tasks}.py'
        needs, options = [self.scenes], []
        if row.distilled:
            needs.append(self.run(row.distilled, seed))
            last = self._count(CONFIGS / f'{row.distilled}.py', 'distil')
            start = 'model.backbone.init_cfg'
            options = [
                f'{start}.type=Pretrained',
                f'{start}.checkpoint={needs[-1]}/iter_{last}.pth',
            ]
        run = self.run(row.key, seed)
        return self._train(run, config, seed, 'tasks', options, tuple(needs))

    def _count(self, config: Path, kind: str) -> int:
        own: int = Config.fromfile(config).train_cfg.max_iters
        return self._iters.get(kind, own)

    def _train(
        self,
        run: Path,
        config: Path,
        seed: int,
        kind: str,
        options: list[str] | None = None,
        needs: tuple[Path, ...] = (),
    ) -> Job:
        count = self._count(config, kind)
        tool = ROOT / 'tools' / 'train.py'
        command = [sys.executable, *map(str, (tool, config))]
        command += ['--work-dir', str(run), '--resume']
        command += ['--cfg-options', f'randomness.seed={seed}']
        command += [f'train_cfg.max_iters={count}']
        command += [f'param_scheduler.T_max={count}', *(options or [])]
        return Job(run, command, needs)


def _script(name: str, *arguments: object) -> list[str]:
    """Command of one of the lab's modules."""
    module = f'{__package__}.{name}'
    return [sys.executable, '-m', module, *map(str, arguments)]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument('--work-dir', type=Path, default='work_dirs/reproduce')
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1])
    parser.add_argument(
        '--jobs', type=int, default=2, help='at a time, one thread each'
    )
    parser.add_argument('--train', type=int, default=8000, help='scenes')
    parser.add_argument('--test', type=int, default=1000, help='scenes')
    for kind in ('distil', 'tasks'):
        parser.add_argument(
            f'--{kind}-iters', type=int, help="None is the configs' own"
        )
    parser.add_argument(
        '--report-only', action='store_true', help='of what is done so far'
    )
    args = parser.parse_args()
    iters = dict(distil=args.distil_iters, tasks=args.tasks_iters)
    plan = Plan(
        args.work_dir.resolve(),
        {kind: count for kind, count in iters.items() if count},
        dict(train=args.train, test=args.test),
    )
    # jobs import the lab, which is not installed
    env = dict(KPU_MM_DIGITS=str(plan.scenes), PYTHONPATH=str(ROOT))
    if args.report_only and not (plan.teachers / 'done.json').is_file():
        sys.exit(
            f'{args.work_dir} holds nothing to report yet: call this without '
            '--report-only first, or with the --work-dir of such a run.'
        )
    jobs = [] if args.report_only else list(plan.jobs(args.seeds))
    try:
        run_jobs(jobs, args.jobs, env)
    except JobError as error:
        sys.exit(str(error))
    report = write_report(plan.run, plan.teachers, args.seeds, args.work_dir)
    print('Report:', report)


if __name__ == '__main__':
    main()
