import torch

from kpu_mm.models.average_over_ranks import average_over_ranks
from tests.two_processes import run_in_two


def test_mean_of_two_processes(tmp_path):
    def work(rank):
        return average_over_ranks(torch.tensor([1.0, 2.0]) + 4 * rank)

    for result in run_in_two(work, tmp_path):
        assert result.tolist() == [3.0, 4.0]


def test_one_process():
    assert average_over_ranks(torch.tensor([1.0, 2.0])).tolist() == [1, 2]
