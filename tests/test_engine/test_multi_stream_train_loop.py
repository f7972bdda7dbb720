import pytest
import torch
from mmengine.runner import Runner

from kpu_mm.engine import MultiStreamTrainLoop
from kpu_mm.models.multi_stream_model import MultiStreamModel
from tests.runs import write_images


class Mean(MultiStreamModel):
    """Takes two streams and learns their images' mean."""

    stream_names = ('near', 'far')

    def __init__(self):
        super().__init__()
        self.mean = torch.nn.Parameter(torch.zeros(()))
        self.steps = []

    def forward(self, streams, mode='loss'):
        losses = [
            (batch['images'].float().mean() - self.mean).square()
            for batch in streams.values()
        ]
        return dict(loss=sum(losses))

    def after_step(self, moved):
        self.steps.append((moved, self.mean.item()))


@pytest.fixture
def train(tmp_path):
    write_images(tmp_path / 'images', 3)
    stream = dict(
        batch_size=2,
        num_workers=0,
        dataset=dict(
            type='kpu_mm.UnlabeledImages',
            sources=dict(
                type='kpu_mm.FolderSource', root=str(tmp_path / 'images')
            ),
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
            optim_wrapper=dict(
                optimizer=dict(type='SGD', lr=0.1), **optim_wrapper
            ),
            randomness=dict(seed=0),
            experiment_name='-'.join(streams) + str(len(optim_wrapper)),
        )
        return runner.train()

    return run


def test_each_step_is_followed_up(train):
    moved, means = zip(*train('near', 'far').steps, strict=True)
    assert moved == (True,) * 4
    assert len(set(means)) == 4


def test_accumulated_gradients_are_one_step(train):
    steps = train('near', 'far', accumulative_counts=2).steps
    moved, means = zip(*steps, strict=True)
    assert moved == (False, True, False, True)
    assert means[0] == 0 and means[1] == means[2] != means[3]


def test_a_missing_stream_is_named(train):
    with pytest.raises(ValueError, match=r"no stream \['far'\].*never learn"):
        train('near')


def test_a_stream_too_many_is_named(train):
    with pytest.raises(ValueError, match=r"\['off'\] that the model does no"):
        train('near', 'far', 'off')
