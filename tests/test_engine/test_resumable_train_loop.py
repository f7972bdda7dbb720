import pytest
import torch
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch.utils.data import TensorDataset

from kpu_mm.engine import ResumableTrainLoop


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
        default_hooks=dict(
            checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=3)
        ),
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
