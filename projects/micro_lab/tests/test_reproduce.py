import json
import sys

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import Runner

from kpu_mm.registry import MODELS
from projects.micro_lab.demo import CONFIG
from projects.micro_lab.make_digit_scenes import write_digit_scenes
from projects.micro_lab.paper_rows import STUDENTS, UNTRAINED, all_rows
from projects.micro_lab.report import COMPARED, DETECTED
from projects.micro_lab.reproduce import CONFIGS, Job, JobError, Plan, run_jobs

SCENES = 16


def python(code):
    return [sys.executable, '-c', code]


def append(path, word):
    return python(f'open({str(path)!r}, "a").write({word!r})')


def test_jobs_run_once_and_in_order(tmp_path):
    out = tmp_path / 'out.txt'
    first = Job(tmp_path / 'first', append(out, 'a'))
    second = Job(tmp_path / 'second', append(out, 'b'), (first.folder,))
    run_jobs([second, first], 2, {})
    run_jobs([second, first], 2, {})
    assert out.read_text() == 'ab'
    done = json.loads((first.folder / 'done.json').read_text())
    assert done['command'] == first.command and done['minutes'] >= 0


def test_environment_of_jobs(tmp_path):
    code = 'import os; print(os.environ["WORD"], os.environ["OMP_NUM_THREADS"])'
    job = Job(tmp_path / 'job', python(code))
    run_jobs([job], 1, dict(WORD='hello'))
    assert (job.folder / 'log.txt').read_text() == 'hello 1\n'


def test_a_failed_job_runs_again(tmp_path):
    flag = tmp_path / 'flag'
    code = f'import os, sys; sys.exit(not os.path.exists({str(flag)!r}))'
    job = Job(tmp_path / 'job', python(code))
    after = Job(tmp_path / 'after', python('print(1)'), (job.folder,))
    with pytest.raises(JobError, match=r'job failed, see .*log\.txt'):
        run_jobs([job, after], 1, {})
    assert not job.done and not after.done
    # Now the job succeeds, and so does the one that needs it.
    flag.touch()
    run_jobs([job, after], 1, {})
    assert job.done and after.done


def test_needs_that_no_job_makes(tmp_path):
    job = Job(tmp_path / 'job', python('print(1)'), (tmp_path / 'other',))
    with pytest.raises(JobError, match='needs what no job makes'):
        run_jobs([job], 1, {})


@pytest.fixture
def plan(tmp_path):
    return Plan(tmp_path, dict(distil=7), dict(train=30, test=20))


def test_jobs_need_what_comes_before(plan):
    jobs = list(plan.jobs([0, 1]))
    done = set()
    for job in jobs:
        assert set(job.needs) <= done
        assert job.folder not in done
        done.add(job.folder)
    # Scenes and teachers once; per seed the untrained adapter, a training and
    # an evaluation of each student, a detector on some, and a training of each
    # row's decoders. What is compared has two seeds, the rest has one.
    students = 2 + 2 * (len(STUDENTS) + len(COMPARED & set(STUDENTS))) + 2 * len(DETECTED)
    assert len(jobs) == 2 + students + len(all_rows())
    assert len(list(plan.jobs([0, 1], students_only=True))) == 2 + students
    assert set(COMPARED) <= {UNTRAINED, *STUDENTS}
    assert {plan.run('famo', 0), plan.run('kpu', 1)} <= done
    assert plan.run('famo', 1) not in done


def test_tasks_start_from_their_student(plan):
    jobs = {job.folder: job.command for job in plan.jobs([4])}
    command = jobs[plan.run('tasks_base-b', 4)]
    student = plan.run('base-b', 4)
    assert f'model.backbone.init_cfg.checkpoint={student}/iter_7.pth' in command
    assert 'train_cfg.max_iters=7' in jobs[student]
    assert 'randomness.seed=4' in command
    own = Config.fromfile(CONFIGS / 'tasks.py').train_cfg.max_iters
    assert f'train_cfg.max_iters={own}' in command
    teacher = jobs[plan.run('tasks_clip', 4)]
    assert not any('init_cfg' in argument for argument in teacher)


@pytest.mark.parametrize('path', sorted(CONFIGS.glob('*.py')), ids=lambda path: path.stem)
def test_configs_build_and_are_of_use(path):
    config = Config.fromfile(path)
    init_default_scope(config.default_scope)
    torch.manual_seed(0)
    model = MODELS.build(config.model)
    assert any(p.requires_grad for p in model.parameters())
    # The demo's config is the base of all distillations.
    used = {CONFIG.stem, *(row.tasks for row in all_rows().values())}
    assert {row.distilled for row in all_rows().values() if row.distilled} <= set(STUDENTS)
    used |= set(STUDENTS)
    assert path.stem in used


@pytest.mark.slow
def test_decoders_reach_floors_on_the_scenes_they_learn(tmp_path, monkeypatch):
    """Mask DINO needs about 60 passes over a scene, hence 120 iterations."""
    scenes = tmp_path / 'scenes'
    for split in ('train', 'test'):
        write_digit_scenes(scenes / split, 'train', 0, SCENES, 64)
    monkeypatch.setenv('KPU_MM_DIGITS', str(scenes))
    config = Config.fromfile(CONFIGS / 'tasks_dinov2.py')
    config.work_dir = str(tmp_path / 'run')
    config.randomness = dict(seed=0)
    config.param_scheduler.T_max = 120
    config.train_cfg.update(max_iters=120, val_interval=120)
    config.default_hooks.checkpoint.interval = 120
    runner = Runner.from_cfg(config)
    runner.train()
    found = runner.message_hub.log_scalars
    for name, floor in {
        'detection/coco/bbox_mAP': 0.45,
        'detection/coco/segm_mAP': 0.45,
        'segmentation/mIoU': 60,
        'classification/accuracy/top1': 95,
    }.items():
        assert found[f'val/{name}'].current() > floor, name
