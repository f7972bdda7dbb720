"""What a step of several streams gives for the log."""

import pytest
import torch
from mmengine.optim import OptimWrapper
from torch import nn

from kpu_mm.models.multi_stream_model import LogValues, MultiStreamModel


class Squares(MultiStreamModel):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.weight = nn.Parameter(torch.tensor(3.0))

    @property
    def stream_names(self):
        return ('a', 'b')

    def forward(self, streams, mode='loss'):
        terms = {name: (self.weight * batch).square().sum() for name, batch in streams.items()}
        return dict(loss=sum(terms.values()), **{k: v.detach() for k, v in terms.items()})


@pytest.mark.parametrize('backward', ['joint', 'per_stream'])
def test_values_are_those_before_the_step(backward):
    model = Squares(backward=backward)
    wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.01))
    data = dict(streams=dict(a=torch.tensor([1.0]), b=torch.tensor([2.0])))
    logs = model.train_step(data, wrapper)
    assert model.weight.item() == pytest.approx(3 - 0.01 * 2 * 3 * 5)
    assert dict(logs) == dict(loss=45.0, a=9.0, b=36.0)


def test_log_values_are_numbers():
    logs = LogValues(['x', 'y'], torch.tensor([1.5, float('inf')]))
    assert len(logs) == 2 and list(logs) == ['x', 'y']
    assert isinstance(logs['x'], float) and logs['y'] == float('inf')
