"""The paper's tables and figures at micro size, on digit scenes.

It distils the student of every row from the micro teachers, trains the
decoders on it, and writes a report with the published figures beside. It may
be killed at any time; the same command then continues. Equal seeds give equal
numbers on one machine.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import NamedTuple

from mmengine.config import Config

from .evaluate import KPU
from .paper_rows import STUDENTS, UNTRAINED, Row, all_rows
from .report import COMPARED, DETECTED, write_report
from .results import collect

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = Path(__file__).resolve().parent / 'configs'


class Job(NamedTuple):
    """A command with a folder of its own.

    Args:
        folder: Gets ``log.txt``, and ``done.json`` after a success.
        command: The command, which continues its work if it runs again.
        needs: Folders of the jobs that must be done before.
    """

    folder: Path
    command: list[str]
    needs: tuple[Path, ...] = ()

    @property
    def done(self) -> bool:
        """Whether it succeeded before."""
        return (self.folder / 'done.json').is_file()


class JobError(Exception):
    """A job failed; the message names its log."""


def run_jobs(jobs: Sequence[Job], workers: int, env: Mapping[str, str]) -> None:
    """Run all jobs that are not done yet.

    Args:
        jobs: The jobs, in any order.
        workers: Number of jobs at a time, with one thread each.
        env: Environment variables of all jobs besides those of this process.

    Raises:
        JobError: If a job fails. Jobs that are running are finished first.
    """
    waiting = [job for job in jobs if not job.done]
    variables = dict(os.environ, OMP_NUM_THREADS='1', **env)
    total, begin = len(waiting), time.monotonic()
    running: dict[Future[None], Job] = {}
    with ThreadPoolExecutor(workers) as pool:
        while waiting or running:
            ready = [job for job in waiting if all((f / 'done.json').is_file() for f in job.needs)]
            if not ready and not running:
                raise JobError(f'{waiting[0].folder} needs what no job makes.')
            for job in ready[: workers - len(running)]:
                waiting.remove(job)
                running[pool.submit(_run, job, variables)] = job
            finished, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                job = running.pop(future)
                future.result()  # raises the error of the job
                left = len(waiting) + len(running)
                minutes = (time.monotonic() - begin) / 60
                print(f'[{total - left}/{total}, {minutes:.0f} min] {job.folder}', flush=True)


def _run(job: Job, env: Mapping[str, str]) -> None:
    begin = time.monotonic()
    job.folder.mkdir(parents=True, exist_ok=True)
    log = job.folder / 'log.txt'
    with log.open('a') as file:
        code = subprocess.run(
            job.command, stdout=file, stderr=subprocess.STDOUT, env=env
        ).returncode
    if code:
        lines = log.read_text().strip().splitlines()[-1:]
        raise JobError(f'{job.folder} failed, see {log}: {" ".join(lines)}')
    minutes = round((time.monotonic() - begin) / 60, 2)
    # Renamed when complete, so that a kill leaves no half-written file.
    temporary = job.folder / 'done.tmp'
    temporary.write_text(json.dumps(dict(command=job.command, minutes=minutes)))
    temporary.rename(job.folder / 'done.json')


class Plan:
    """The jobs of a reproduction.

    Args:
        folder: The folder of all results.
        iters: Iterations of the distillations ('distil') and of the
            decoders' trainings ('tasks') that replace their configs' own.
        scenes: Number of labelled scenes of the splits, 'train' and 'test'.
    """

    def __init__(self, folder: Path, iters: dict[str, int], scenes: dict[str, int]) -> None:
        self._folder = folder
        self._iters = iters
        self._scenes = scenes
        self.scenes = folder / 'scenes'
        self.teachers = folder / 'teachers'

    def jobs(self, seeds: list[int], students_only: bool = False) -> Iterator[Job]:
        """Yield all jobs, each after those that it needs.

        Args:
            seeds: Seeds of the trainings. What the report compares is
                trained with each, the rest with the first.
            students_only: Whether to leave out the decoders. Defaults to
                False.
        """
        counts = [f'--{s}={n}' for s, n in self._scenes.items()]
        yield Job(self.scenes, _module('make_digit_scenes', self.scenes, *counts))
        yield self._evaluate(self.teachers, self.teachers)
        # The students first: they answer most and cost least. Each row gets
        # all its seeds before the next begins, so that a run that is stopped
        # leaves whole rows.
        for seed in seeds:
            untrained = self.run(UNTRAINED, seed)
            yield self._evaluate(untrained, untrained, KPU, f'--untrained={seed}')
        for name in STUDENTS:
            for seed in seeds if name in COMPARED else seeds[:1]:
                run, config = self.run(name, seed), CONFIGS / f'{name}.py'
                yield self._train(run, config, seed, 'distil')
                yield self._evaluate(run / 'evaluated', run, config)
        for name in sorted(DETECTED):
            for seed in seeds:
                yield self._detect(name, seed)
        if not students_only:
            for row in all_rows().values():
                yield self._train_tasks(row, seeds[0])

    def run(self, name: str, seed: int) -> Path:
        """Return the folder of a training.

        Args:
            name: Name of a student, or key of a row.
            seed: Seed of the training.
        """
        return self._folder / f'seed_{seed}' / name

    def _evaluate(self, folder: Path, run: Path, *arguments: Path | str) -> Job:
        command = _module('evaluate', run, *arguments, *self._test_scenes())
        return Job(folder, command, () if folder == run else (run,))

    def _detect(self, name: str, seed: int) -> Job:
        run = self.run(name, seed)
        student = [KPU, f'--untrained={seed}'] if name == UNTRAINED else [CONFIGS / f'{name}.py']
        command = _module('detector', run, *student, *self._test_scenes())
        return Job(run / 'detected', command, (run,))

    def _test_scenes(self) -> list[str]:
        return [f'--pools={self._folder / "pools"}', f'--count={self._scenes["test"]}']

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
        return self._train(run, config, seed, 'tasks', options, needs)

    def _count(self, config: Path, kind: str) -> int:
        own: int = Config.fromfile(config).train_cfg.max_iters
        return self._iters.get(kind, own)

    def _train(
        self,
        run: Path,
        config: Path,
        seed: int,
        kind: str,
        options: Sequence[str] = (),
        needs: Sequence[Path] = (),
    ) -> Job:
        count = self._count(config, kind)
        tool = ROOT / 'tools' / 'train.py'
        command = [sys.executable, *map(str, (tool, config))]
        command += ['--work-dir', str(run), '--resume']
        command += ['--cfg-options', f'randomness.seed={seed}']
        command += [f'train_cfg.max_iters={count}']
        # The cosine schedule ends with the training.
        command += [f'param_scheduler.T_max={count}', *options]
        return Job(run, command, tuple(needs))


def _module(name: str, *arguments: object) -> list[str]:
    """Command that runs a module of the lab."""
    module = f'{__package__}.{name}'
    return [sys.executable, '-m', module, *map(str, arguments)]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument('--work-dir', type=Path, default='work_dirs/reproduce')
    parser.add_argument(
        '--seeds',
        type=int,
        nargs='+',
        default=[0, 1, 2],
        help='what the report compares takes all, the rest the first',
    )
    parser.add_argument('--jobs', type=int, default=2, help='at a time, one thread each')
    parser.add_argument('--train', type=int, default=8000, help='scenes')
    parser.add_argument('--test', type=int, default=1000, help='scenes')
    for kind in ('distil', 'tasks'):
        parser.add_argument(f'--{kind}-iters', type=int, help="None takes the configs' own")
    parser.add_argument('--students-only', action='store_true', help='train no decoders')
    parser.add_argument('--report-only', action='store_true', help='of what is done so far')
    args = parser.parse_args()
    iters = dict(distil=args.distil_iters, tasks=args.tasks_iters)
    plan = Plan(
        args.work_dir.resolve(),
        {kind: count for kind, count in iters.items() if count},
        dict(train=args.train, test=args.test),
    )
    # The jobs import the lab, which is not installed.
    env = dict(KPU_MM_DIGITS=str(plan.scenes), PYTHONPATH=str(ROOT))
    if args.report_only and not (plan.teachers / 'done.json').is_file():
        sys.exit(
            f'{args.work_dir} holds nothing to report yet: call this without '
            '--report-only first, or with the --work-dir of such a run.'
        )
    jobs = [] if args.report_only else list(plan.jobs(args.seeds, args.students_only))
    try:
        run_jobs(jobs, args.jobs, env)
    except JobError as error:
        sys.exit(str(error))
    results = collect(plan.run, plan.teachers, args.seeds)
    print('Report:', write_report(results, args.work_dir))


if __name__ == '__main__':
    main()
