import json
import sys

import pytest

from projects.micro_lab.jobs import Job, JobError, run_jobs


def python(code):
    return [sys.executable, '-c', code]


def append(path, word):
    return python(f'open({str(path)!r}, "a").write({word!r})')


def test_each_once_and_in_order(tmp_path):
    out = tmp_path / 'out.txt'
    first = Job(tmp_path / 'first', append(out, 'a'))
    second = Job(tmp_path / 'second', append(out, 'b'), (first.folder,))
    run_jobs([second, first], 2, {})
    run_jobs([second, first], 2, {})
    assert out.read_text() == 'ab'
    done = json.loads((first.folder / 'done.json').read_text())
    assert done['command'] == first.command and done['minutes'] >= 0


def test_environment(tmp_path):
    code = (
        'import os; print(os.environ["WORD"], os.environ["OMP_NUM_THREADS"])'
    )
    job = Job(tmp_path / 'job', python(code))
    run_jobs([job], 1, dict(WORD='hello'))
    assert (job.folder / 'log.txt').read_text() == 'hello 1\n'


def test_what_failed_runs_again(tmp_path):
    flag = tmp_path / 'flag'
    code = f'import os, sys; sys.exit(not os.path.exists({str(flag)!r}))'
    job = Job(tmp_path / 'job', python(code))
    after = Job(tmp_path / 'after', python('print(1)'), (job.folder,))
    with pytest.raises(JobError, match=r'job failed, see .*log\.txt'):
        run_jobs([job, after], 1, {})
    assert not job.done and not after.done
    flag.touch()
    run_jobs([job, after], 1, {})
    assert job.done and after.done


def test_needs_that_nothing_makes(tmp_path):
    job = Job(tmp_path / 'job', python('print(1)'), (tmp_path / 'other',))
    with pytest.raises(JobError, match='needs what no job makes'):
        run_jobs([job], 1, {})
