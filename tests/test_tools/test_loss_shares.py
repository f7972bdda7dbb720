import json

import numpy as np
import pytest

from tools.analysis_tools.loss_share import first_and_last, loss_shares, read_run, running_mean

ROW = {'step': 1, 's2t/a': 1.0, 's2t/b': 3.0, 'rec/a': 2.0, 'rec/b': 0.0}


def test_shares_by_hand():
    shares = loss_shares([ROW], dict(s2t=1.0, rec=0.5))
    # a: 1 + 0.5 * 2 = 2, b: 3; s2t: 4, rec: 1
    assert shares.teachers == dict(a=[0.4], b=[0.6])
    assert shares.terms == dict(s2t=[0.8], rec=[0.2])
    assert shares.weights == {} and shares.steps.tolist() == [1]
    assert shares.losses['rec/a'] == [2.0]


def test_weights_of_a_balancer():
    row = {**ROW, 'weight/a': 0.75, 'weight/b': 0.25}
    shares = loss_shares([row], dict(s2t=1.0, rec=1.0))
    # a: 0.75 * 3, b: 0.25 * 3
    assert shares.teachers == dict(a=[0.75], b=[0.25])
    np.testing.assert_allclose(shares.terms['rec'], 1.5 / 3)
    assert shares.weights == dict(a=[0.75], b=[0.25])


def test_a_teacher_of_two_streams():
    row = {'step': 1, 's2t/a/x': 1.0, 's2t/a/y': 5.0, 's2t/b': 1.0}
    shares = loss_shares([{**row, 'weight/a': 2.0, 'weight/b': 6.0}], {'s2t': 1})
    # a: 2 * (1 + 5) / 2, b: 6 * 1
    assert shares.teachers == dict(a=[0.5], b=[0.5])
    assert shares.losses['s2t/a/y'] == [5.0]


def test_rows_without_losses_are_left_out():
    rows = [ROW, {'step': 2, 'coco/bbox_mAP': 0.1}, {**ROW, 'step': 3}]
    shares = loss_shares(rows, dict(s2t=1.0))
    assert shares.steps.tolist() == [1, 3]
    with pytest.raises(ValueError, match='distillation run'):
        loss_shares(rows[1:2], dict(s2t=1.0))


def test_smoothing_comes_before_the_ratio():
    rows = [{'step': i, 's2t/a': a, 's2t/b': 1.0} for i, a in enumerate([1, 9])]
    shares = loss_shares(rows, dict(s2t=1.0), window=2)
    np.testing.assert_allclose(shares.teachers['a'], [0.5, 5 / 6])
    np.testing.assert_allclose(running_mean(np.array([1.0, 2, 6, 4]), 3), [1, 1.5, 3, 4])


def write(folder, rows, tail='', config='model = dict()'):
    folder.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(row) for row in rows]
    (folder / 'scalars.json').write_text('\n'.join(lines) + '\n' + tail)
    (folder / 'config.py').write_text(config)


def test_a_killed_and_resumed_run(tmp_path):
    first = [{'step': i, 'loss': 0.0} for i in (1, 2, 3)]
    again = [{'step': i, 'loss': 1.0} for i in (3, 4)]
    write(tmp_path / '20260102' / 'vis_data', again)
    write(tmp_path / '20260101' / 'vis_data', first, '{"step": 4, "lo')
    rows, _ = read_run(tmp_path)
    assert [(r['step'], r['loss']) for r in rows] == [(1, 0), (2, 0), (3, 1), (4, 1)]


def test_broken_logs(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'no scalars\.json'):
        read_run(tmp_path)
    write(tmp_path / 'a', [], 'nonsense\n{"step": 1}\n')
    with pytest.raises(ValueError, match='line 1'):
        read_run(tmp_path)


def test_terms_of_the_config(tmp_path):
    write(tmp_path, [], config='model = dict(terms=dict(s2t=1.0, t2s=0.3))')
    assert read_run(tmp_path)[1] == dict(s2t=1.0, t2s=0.3)
    write(tmp_path, [], config="model = dict(type='kpu_mm.KPUDistiller')")
    assert read_run(tmp_path)[1] == dict(s2t=1.0, t2s=1.0, rec=1.0)
    (tmp_path / 'config.py').unlink()
    with pytest.raises(FileNotFoundError, match=r'config\.py'):
        read_run(tmp_path / 'scalars.json')


def test_first_and_last():
    assert first_and_last(np.arange(20.0)) == (0.5, 18.5)
    assert first_and_last(np.arange(3.0)) == (0, 2)
