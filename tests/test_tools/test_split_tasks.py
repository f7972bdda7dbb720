import runpy
import sys

import pytest
import torch

from tests.runs import ROOT


@pytest.fixture
def split(monkeypatch):
    tool = str(ROOT / 'tools/model_converters/split_tasks.py')

    def call(*arguments):
        monkeypatch.setattr(sys, 'argv', [tool, *map(str, arguments)])
        runpy.run_path(tool, run_name='__main__')

    return call


def test_each_task_gets_a_file(split, tmp_path, capsys):
    state = {
        'backbone.w': torch.rand(2),
        'tasks.a.head.w': torch.rand(3),
        'tasks.b.head.w': torch.rand(4),
    }
    torch.save(dict(state_dict=state, meta={}), tmp_path / 'joint.pth')
    split(tmp_path / 'joint.pth', tmp_path / 'out')
    paths = [tmp_path / 'out' / f'{task}.pth' for task in 'ab']
    assert capsys.readouterr().out.split() == [str(path) for path in paths]
    for task, path in zip('ab', paths, strict=True):
        found = torch.load(path)['state_dict']
        assert found.keys() == {'backbone.w', 'head.w'}
        assert torch.equal(found['head.w'], state[f'tasks.{task}.head.w'])


def test_other_checkpoints_are_refused(split, tmp_path, capsys):
    torch.save(dict(state_dict={'backbone.w': torch.rand(2)}), tmp_path / 'x')
    with pytest.raises(SystemExit):
        split(tmp_path / 'x', tmp_path)
    assert 'is not of a joint run' in capsys.readouterr().err
