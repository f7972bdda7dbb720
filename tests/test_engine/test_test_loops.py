import pytest
import torch
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch.utils.data import Dataset

from kpu_mm.engine.test_loops import MultiTaskTestLoop, MultiTaskValLoop


class Numbers(Dataset):
    def __init__(self, numbers, name):
        self.numbers = numbers
        self.metainfo = dict(name=name)

    def __len__(self):
        return len(self.numbers)

    def __getitem__(self, index):
        return self.numbers[index]


class Times(BaseModel):
    """Multiplies each task's numbers by a factor of its own."""

    factors = dict(a=10, b=100)  # noqa: RUF012

    def forward(self, inputs):
        raise NotImplementedError

    def val_step(self, data):
        assert not self.training and not torch.is_grad_enabled()
        ((task, batch),) = data['streams'].items()
        return {task: [self.factors[task] * number for number in batch]}

    test_step = val_step


class Sum(BaseMetric):
    def process(self, data_batch, data_samples):
        self.results += data_samples

    def compute_metrics(self, results):
        return {'sum': sum(results), self.dataset_meta['name']: 1}


class Record(Hook):
    def __init__(self):
        self.calls = []

    def __getattribute__(self, name):
        if name.startswith(('before_', 'after_')) and 'run' not in name:
            return lambda runner, **values: self.calls.append((name, values))
        return super().__getattribute__(name)


def runner(tmp_path, stage, loop, **options):
    def loader(numbers, name):
        return dict(
            batch_size=2,
            num_workers=0,
            dataset=Numbers(numbers, name),
            sampler=dict(type='DefaultSampler', shuffle=False),
        )

    settings = {
        f'{stage}_dataloader': dict(a=loader([1, 2, 3], 'first'), b=loader([4], 'second')),
        f'{stage}_evaluator': dict(a=[Sum()], b=[Sum()]),
        f'{stage}_cfg': dict(type=loop),
    }
    return Runner(
        Times(),
        work_dir=str(tmp_path),
        experiment_name=tmp_path.name,
        default_hooks=dict(logger=None, timer=None),
        **{**settings, **options},
    )


@pytest.mark.parametrize(
    ('stage', 'loop'), [('val', MultiTaskValLoop), ('test', MultiTaskTestLoop)]
)
def test_each_task_has_its_own_metric_and_hooks_see_one_run(tmp_path, stage, loop):
    run = runner(tmp_path, stage, loop)
    record = Record()
    run.register_hook(record)
    metrics = getattr(run, stage)()
    assert metrics == {'a/sum': 60, 'a/first': 1, 'b/sum': 400, 'b/second': 1}
    names = [name for name, _ in record.calls]
    iteration = [f'before_{stage}_iter', f'after_{stage}_iter']
    assert names == [
        f'before_{stage}',
        f'before_{stage}_epoch',
        *(3 * iteration),
        f'after_{stage}_epoch',
        f'after_{stage}',
    ]
    assert record.calls[-2][1] == dict(metrics=metrics)
    assert record.calls[-3][1]['outputs'] == [400]


def test_a_task_without_evaluator_is_refused(tmp_path):
    run = runner(tmp_path, 'val', MultiTaskValLoop, val_evaluator=dict(a=[Sum()]))
    with pytest.raises(ValueError, match='give one of each to every task'):
        run.val()
