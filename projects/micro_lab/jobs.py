"""Jobs that need one another, some at a time, each done once."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import (
    FIRST_COMPLETED,
    Future,
    ThreadPoolExecutor,
    wait,
)
from pathlib import Path
from typing import NamedTuple


class Job(NamedTuple):
    """A command with a folder of its own.

    Args:
        folder: Gets ``log.txt``, and ``done.json`` when it has succeeded.
        command: What to run; it goes on where it was if run again.
        needs: Folders of jobs that must be done before.
    """

    folder: Path
    command: list[str]
    needs: tuple[Path, ...] = ()

    @property
    def done(self) -> bool:
        """Whether it has succeeded before."""
        return (self.folder / 'done.json').is_file()


class JobError(Exception):
    """A job failed; the message says where its log is."""


def run_jobs(
    jobs: Sequence[Job], workers: int, env: Mapping[str, str]
) -> None:
    """Run what is not done yet.

    Args:
        jobs: The jobs; each after those that it needs.
        workers: Jobs at a time, each with one thread.
        env: Environment variables for all of them, besides those of this
            process.

    Raises:
        JobError: If a job fails; those under way are finished first.
    """
    waiting = [job for job in jobs if not job.done]
    variables = dict(os.environ, OMP_NUM_THREADS='1', **env)
    total, begin = len(waiting), time.monotonic()
    running: dict[Future[None], Job] = {}
    with ThreadPoolExecutor(workers) as pool:
        while waiting or running:
            ready = [
                job
                for job in waiting
                if all((f / 'done.json').is_file() for f in job.needs)
            ]
            if not ready and not running:
                raise JobError(f'{waiting[0].folder} needs what no job makes.')
            for job in ready[: workers - len(running)]:
                waiting.remove(job)
                running[pool.submit(_run, job, variables)] = job
            finished, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                job = running.pop(future)
                future.result()
                left = len(waiting) + len(running)
                minutes = (time.monotonic() - begin) / 60
                print(
                    f'[{total - left}/{total}, {minutes:.0f} min] '
                    f'{job.folder}',
                    flush=True,
                )


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
    minutes = (time.monotonic() - begin) / 60
    temporary = job.folder / 'done.tmp'
    temporary.write_text(
        json.dumps(dict(command=job.command, minutes=round(minutes, 2)))
    )
    temporary.rename(job.folder / 'done.json')
