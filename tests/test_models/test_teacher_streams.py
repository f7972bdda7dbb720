import pytest
import torch

from kpu_mm.models.teacher_streams import TeacherStreams


def join_streams(parts, num_streams):
    streams = [f'stream {i}' for i in range(num_streams)]
    return TeacherStreams(['a'], dict(a=streams)).join('a', parts)


def test_by_hand():
    got = join_streams([torch.tensor([1.0, 3.0]), torch.tensor([5.0])], 2)
    torch.testing.assert_close(got, torch.tensor([0.75, 2.25, 7.5]))
    assert float(got.mean()) == pytest.approx((2 + 5) / 2)


def test_one_of_one_is_itself():
    part = torch.rand(7)
    assert torch.equal(join_streams([part], 1), part)


def test_streams_one_by_one_sum_to_all_together():
    parts = [torch.rand(n) for n in (3, 1, 8)]
    alone = sum(join_streams([part], 3).mean() for part in parts)
    torch.testing.assert_close(join_streams(parts, 3).mean(), alone)


def test_teachers_of_a_stream_and_names_in_logs():
    streams = TeacherStreams(['a', 'b', 'c'], dict(b='a', c=['a', 'd']))
    assert streams.of_teacher == dict(a=('a',), b=('a',), c=('a', 'd'))
    assert streams.of_stream == dict(a=['a', 'b', 'c'], d=['c'])
    assert streams.label('b', 'a') == 'b' and streams.label('c', 'd') == 'c/d'
