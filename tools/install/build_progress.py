"""Run a build that compiles with ninja and show how far it is."""

from __future__ import annotations

import os
import queue
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

STEP = re.compile(r'\s*\[(\d+)/(\d+)\]')


def duration(seconds: float) -> str:
    """Write seconds as people say them.

    Args:
        seconds: A time span.

    Returns:
        For example ``1 min 40 s``.
    """
    minutes, rest = divmod(round(seconds), 60)
    return f'{minutes} min {rest:02d} s' if minutes else f'{rest} s'


class Progress:
    """Turn ninja's ``[n/m]`` lines into one line every few seconds.

    Args:
        name: What is being built.
        every: Seconds between two lines.
        now: Seconds on any clock at the start.
    """

    def __init__(self, name: str, every: float, now: float) -> None:
        self.name = name
        self.every = every
        self.started = self.compiling_since = self.reported = now
        self.done = self.total = 0

    def read(self, line: str, now: float) -> None:
        """Take in a line of the build.

        Args:
            line: What the build printed.
            now: Seconds on the clock of the constructor.
        """
        match = STEP.match(line)
        if match is None:
            # ninja reports what is finished: compiling began before.
            if self.total == 0 and 'building' in line:
                self.compiling_since = now
            return
        self.done, self.total = int(match[1]), int(match[2])

    def report(self, now: float) -> str | None:
        """Give the line that is due.

        Args:
            now: Seconds on the clock of the constructor.

        Returns:
            The line, None if the last one is recent enough.
        """
        if now - self.reported < self.every:
            return None
        self.reported = now
        passed = duration(now - self.started)
        if self.done == 0:
            return f'{self.name}: started {passed} ago'
        text = f'{self.name} [{self.done}/{self.total}] after {passed}'
        if self.done == self.total:
            return f'{text}, linking'
        rate = (now - self.compiling_since) / self.done
        left = duration(rate * (self.total - self.done))
        return f'{text}, about {left} left'


def run_with_progress(
    command: list[str],
    name: str,
    log: Path,
    env: dict[str, str],
    every: float = 15.0,
) -> None:
    """Run a build; its own output goes to a file, progress to stdout.

    Args:
        command: The program and its arguments.
        name: What is being built, for the progress lines.
        log: The file that takes the output of the build.
        env: The environment of the build.
        every: Seconds between two progress lines. Defaults to 15.

    Raises:
        subprocess.CalledProcessError: The build failed; ``output`` holds the
            end of its log.
    """
    lines: queue.Queue[str | None] = queue.Queue()
    progress = Progress(name, every, time.monotonic())
    # A session of its own, so that compilers end with the build and don't
    # outlive an interrupted one.
    process = subprocess.Popen(
        command,
        env=env,
        text=True,
        errors='replace',
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )

    def pump() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            lines.put(line)
        lines.put(None)

    threading.Thread(target=pump, daemon=True).start()
    try:
        with log.open('w') as file:
            _follow(lines, progress, file.write)
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    finally:
        process.wait()
    if process.returncode:
        end = '\n'.join(log.read_text().splitlines()[-30:])
        raise subprocess.CalledProcessError(process.returncode, command, end)


def _follow(
    lines: queue.Queue[str | None],
    progress: Progress,
    write: Callable[[str], object],
) -> None:
    while True:
        try:
            line = lines.get(timeout=1.0)
        except queue.Empty:
            line = ''
        if line is None:
            return
        write(line)
        progress.read(line, time.monotonic())
        message = progress.report(time.monotonic())
        if message:
            print(message, flush=True)
