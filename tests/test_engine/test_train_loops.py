import pytest
import torch
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch.utils.data import TensorDataset

from kpu_mm.engine.train_loops import MultiStreamTrainLoop, ResumableTrainLoop
from kpu_mm.models.multi_stream_model import MultiStreamModel
from tests.runs import write_images


class Regression(BaseModel):
    """Draws from the global generator, as dropout does."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = torch.nn.Linear(3, 1)
        self.seen = []

    def forward(self, inputs, targets, mode='loss'):
        self.seen.append(targets.tolist())
        noisy = inputs + torch.randn_like(inputs)
        return dict(loss=(self.layer(noisy)[:, 0] - targets).square().mean())

    def train_step(self, data, optim_wrapper):
        inputs, targets = data
        loss = self(inputs, targets)['loss']
        optim_wrapper.update_params(loss)
        return dict(loss=loss)


SAVE = dict(checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=3))


def train(work_dir, max_iters, name, workers=0, **options):
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(7, 3, generator=generator)
    runner = Runner(
        Regression(),
        work_dir=str(work_dir),
        train_dataloader=dict(
            batch_size=2,
            num_workers=workers,
            dataset=TensorDataset(inputs, torch.arange(7.0)),
            collate_fn=dict(type='default_collate'),
        ),
        train_cfg=dict(type=ResumableTrainLoop, max_iters=max_iters),
        optim_wrapper=dict(optimizer=dict(type='Adam', lr=0.1)),
        default_hooks=options.pop('default_hooks', SAVE),
        randomness=dict(seed=5),
        experiment_name=f'resumable_{name}_{work_dir.name}',
        **options,
    )
    return runner.train()


@pytest.mark.parametrize('workers', [0, 2])
def test_a_resumed_run_is_the_uninterrupted_one(tmp_path, workers):
    whole = train(tmp_path, 9, f'whole{workers}')
    resumed = train(
        tmp_path,
        9,
        f'resumed{workers}',
        workers,
        resume=True,
        load_from=str(tmp_path / 'iter_3.pth'),
    )
    assert len(whole.seen) == 9
    assert resumed.seen == whole.seen[3:]
    assert torch.equal(resumed.layer.weight, whole.layer.weight)


@pytest.mark.parametrize(
    ('option', 'name'),
    [
        (dict(param_scheduler=dict(type='MultiStepLR', milestones=[2])), 'MultiStepLR'),
        (dict(default_hooks=dict(checkpoint=dict(type='CheckpointHook'))), 'CheckpointHook'),
    ],
)
def test_what_counts_epochs_is_refused(tmp_path, option, name):
    with pytest.raises(ValueError, match=f'{name} has by_epoch=True, but Resum.* has no epochs'):
        train(tmp_path, 2, name, **option)


class Mean(MultiStreamModel):
    """Takes two streams and learns their images' mean."""

    stream_names = ('near', 'far')

    def __init__(self):
        super().__init__()
        self.mean = torch.nn.Parameter(torch.zeros(()))
        self.means = []

    def forward(self, streams, mode='loss'):
        losses = [
            (batch['images'].float().mean() - self.mean).square() for batch in streams.values()
        ]
        return dict(loss=sum(losses))

    def train_step(self, data, optim_wrapper):
        logs = super().train_step(data, optim_wrapper)
        self.means.append(self.mean.item())
        return logs


@pytest.fixture
def train_streams(tmp_path):
    write_images(tmp_path / 'images', 3)
    stream = dict(
        batch_size=2,
        num_workers=0,
        dataset=dict(
            type='kpu_mm.UnlabeledImages',
            sources=dict(type='kpu_mm.FolderSource', root=str(tmp_path / 'images')),
            pipeline=[
                dict(type='kpu_mm.DecodeRandomResizedCrop', size=32),
                dict(type='kpu_mm.PackImage'),
            ],
        ),
    )

    def run(*streams, **optim_wrapper):
        runner = Runner(
            Mean(),
            work_dir=str(tmp_path),
            train_dataloader=dict.fromkeys(streams, stream),
            train_cfg=dict(type=MultiStreamTrainLoop, max_iters=4),
            optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1), **optim_wrapper),
            default_hooks=SAVE,
            randomness=dict(seed=0),
            experiment_name='-'.join(streams) + str(len(optim_wrapper)),
        )
        return runner.train()

    return run


def test_each_batch_is_a_step(train_streams):
    means = train_streams('near', 'far').means
    assert len(set(means)) == 4


def test_accumulated_gradients_are_one_step(train_streams):
    means = train_streams('near', 'far', accumulative_counts=2).means
    assert means[0] == 0 and means[1] == means[2] != means[3]


def test_a_missing_stream_is_named(train_streams):
    with pytest.raises(ValueError, match=r"no stream \['far'\].*never learn"):
        train_streams('near')


def test_a_stream_too_many_is_named(train_streams):
    with pytest.raises(ValueError, match=r"\['off'\] that the model does no"):
        train_streams('near', 'far', 'off')
