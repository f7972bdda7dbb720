import os
import subprocess
import sys
import time

import pytest
from build_progress import Progress, duration, run_with_progress


@pytest.mark.parametrize(
    ('seconds', 'text'),
    [(0.4, '0 s'), (59, '59 s'), (60, '1 min 00 s'), (100, '1 min 40 s')],
)
def test_duration(seconds, text):
    assert duration(seconds) == text


def test_one_line_every_few_seconds_with_time_left():
    progress = Progress('ops', every=15, now=0)
    assert progress.report(14.9) is None
    assert progress.report(15) == 'ops: started 15 s ago'
    progress.read("  building 'mmcv._ext' extension", 20)
    progress.read('  [1/10] c++ -c a.cpp', 26)
    assert progress.report(29) is None
    progress.read('  [2/10] c++ -c b.cpp', 30)
    # 2 files in the 10 s of compiling, 8 to go
    assert progress.report(30) == 'ops [2/10] after 30 s, about 40 s left'
    progress.read('  [10/10] c++ -c j.cpp', 80)
    assert progress.report(80) == 'ops [10/10] after 1 min 20 s, linking'


def test_progress_is_shown_and_the_build_is_logged(tmp_path, capsys):
    code = (
        'import time\n'
        'for i in (1, 2, 3):\n'
        '    print(f"[{i}/3] c++", flush=True); time.sleep(0.1)'
    )
    log = tmp_path / 'log'
    run_with_progress(
        [sys.executable, '-c', code], 'ops', log, dict(os.environ), every=0
    )
    assert 'ops [2/3] after' in capsys.readouterr().out
    assert log.read_text() == '[1/3] c++\n[2/3] c++\n[3/3] c++\n'


def test_failed_build_tells_the_end_of_its_log(tmp_path):
    code = 'import sys; print("a.cpp:1: error"); sys.exit(3)'
    with pytest.raises(subprocess.CalledProcessError) as caught:
        run_with_progress(
            [sys.executable, '-c', code],
            'ops',
            tmp_path / 'log',
            dict(os.environ),
        )
    assert caught.value.returncode == 3
    assert 'a.cpp:1: error' in caught.value.output


def test_interrupted_build_ends_its_compilers(tmp_path, monkeypatch):
    child = tmp_path / 'child'
    code = (
        'import pathlib, subprocess, sys\n'
        'run = [sys.executable, "-c", "import time; time.sleep(60)"]\n'
        'process = subprocess.Popen(run)\n'
        f'pathlib.Path({str(child)!r}).write_text(str(process.pid))\n'
        'print("[1/3] c++", flush=True)\n'
        'process.wait()'
    )

    def interrupt(progress, line, now):
        if not line:  # the queue was empty: the child is not there yet
            return
        raise KeyboardInterrupt

    monkeypatch.setattr(Progress, 'read', interrupt)
    with pytest.raises(KeyboardInterrupt):
        run_with_progress(
            [sys.executable, '-c', code],
            'ops',
            tmp_path / 'log',
            dict(os.environ),
        )
    pid = int(child.read_text())
    deadline = time.monotonic() + 10
    while is_running(pid):
        assert time.monotonic() < deadline, f'{pid} lives on'
        time.sleep(0.05)


def is_running(pid):
    try:
        with open(f'/proc/{pid}/stat') as file:
            return file.read().split(')')[1].split()[0] != 'Z'
    except (FileNotFoundError, ProcessLookupError):
        return False
