import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope

from kpu_mm.registry import MODELS
from projects.micro_lab.demo import CONFIG
from projects.micro_lab.paper_rows import all_rows
from projects.micro_lab.reproduce import CONFIGS, Plan


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
    students = {row.distilled for row in all_rows().values() if row.distilled}
    assert len(jobs) == 2 + 2 * (2 * len(students) + len(all_rows()))


def test_tasks_start_from_their_student(plan):
    jobs = {job.folder: job.command for job in plan.jobs([4])}
    command = jobs[plan.run('tasks_base-b', 4)]
    student = plan.run('base-b', 4)
    assert (
        f'model.backbone.init_cfg.checkpoint={student}/iter_7.pth' in command
    )
    assert 'train_cfg.max_iters=7' in jobs[student]
    assert 'randomness.seed=4' in command
    own = Config.fromfile(CONFIGS / 'tasks.py').train_cfg.max_iters
    assert f'train_cfg.max_iters={own}' in command
    teacher = jobs[plan.run('tasks_clip', 4)]
    assert not any('init_cfg' in argument for argument in teacher)


@pytest.mark.parametrize(
    'path', sorted(CONFIGS.glob('*.py')), ids=lambda path: path.stem
)
def test_configs_build_and_are_of_use(path):
    config = Config.fromfile(path)
    init_default_scope(config.default_scope)
    torch.manual_seed(0)
    model = MODELS.build(config.model)
    assert any(p.requires_grad for p in model.parameters())
    # the demo's is the base of all that distil
    used = {CONFIG.stem, *(row.tasks for row in all_rows().values())}
    used |= {row.distilled for row in all_rows().values()}
    assert path.stem in used
